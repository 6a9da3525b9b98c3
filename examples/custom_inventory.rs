//! An inventory of your own: a folder in which every file is one runner, with its name and its address.
//!
//! `cargo run --example custom_inventory`

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use gateway_core::{BoxError, Inventory, InventoryChange};
use gateway_http::Gateway;
use gateway_transport_http::{HttpRunner, HttpRunners};

#[path = "support/mod.rs"]
mod support;

/// Tells the whole list again and again: what has changed in it is found out by who listens.
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
}

#[async_trait]
impl Inventory for Folder {
    type Entry = HttpRunner;

    async fn next(&mut self) -> Option<InventoryChange<HttpRunner>> {
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            match runners(&self.path) {
                Ok(runners) => return Some(InventoryChange::All(runners)),
                // What was told before stays.
                Err(error) => eprintln!("{}: {error}", self.path.display()),
            }
        }
    }
}

fn runners(folder: &Path) -> Result<Vec<HttpRunner>, BoxError> {
    let runner = |file: std::io::Result<std::fs::DirEntry>| {
        let file = file?;
        let address = std::fs::read_to_string(file.path())?;
        Ok(HttpRunner::new(address.trim())?.id(file.file_name().to_string_lossy()))
    };
    std::fs::read_dir(folder)?.map(runner).collect()
}

/// Asks a runner whose file appears, then takes the file away.
///
/// # Errors
/// Anything that went wrong.
pub(crate) async fn run() -> Result<Vec<String>, BoxError> {
    let path = std::env::temp_dir().join(format!("runners-{}", std::process::id()));
    std::fs::create_dir_all(&path)?;
    let gateway = Gateway::builder()
        .runners(HttpRunners::from_inventory(Folder { path: path.clone() }))
        .client_tokens(["client-secret"])
        .build()?;
    let server = support::runner_over_http().await?;
    std::fs::write(path.join("new"), server.url())?;
    support::model_is_there(&gateway).await;
    let mut seen = vec![support::chat(&gateway).await?];
    std::fs::remove_dir_all(&path)?;
    std::fs::create_dir(&path)?;
    support::model_is_gone(&gateway).await;
    seen.push(support::chat(&gateway).await?);
    std::fs::remove_dir(&path)?;
    gateway.shutdown(Duration::from_secs(1)).await;
    Ok(seen)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    for line in run().await? {
        println!("{line}");
    }
    Ok(())
}
