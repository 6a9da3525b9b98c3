//! An engine that does nothing but answer: OpenAI's chat completions, plain and streamed, on one port or many.
//!
//! ```sh
//! rig_engine --ports 9001-9002
//! ```
//!
//! The prompt says how it is to answer (`@mock chunks=100 interval_us=0 delay_us=0;`, see `wire/script.rs`). Each chunk
//! holds `@T` and 19 digits: when it was sent, in nanoseconds of `CLOCK_MONOTONIC`, so that whoever reads it on this
//! machine knows how long it was on its way. Each chunk is a write of its own, as with real engines.
//!
//! `GET /health`, `/v1/models` and `/metrics` are those of vLLM; `GET /totals` has the counts of all ports together.

#[cfg(target_os = "linux")]
mod answer;
#[cfg(target_os = "linux")]
mod connection;
#[cfg(target_os = "linux")]
mod server;

#[cfg(target_os = "linux")]
fn main() -> std::io::Result<()> {
    use clap::Parser;

    let flags = flags::Flags::parse();
    gateway_benches::wire::raise_file_limit()?;
    server::Server::listen(&flags.ports.0)?.run()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("rig_engine: this needs Linux");
}

#[cfg(target_os = "linux")]
mod flags {
    use std::str::FromStr;

    use clap::Parser;

    /// A mock of an inference engine.
    #[derive(Parser, Debug)]
    pub(super) struct Flags {
        /// Where to listen on 127.0.0.1, such as 9001,9010-9019
        #[arg(long)]
        pub(super) ports: Ports,
    }

    #[derive(Debug, Clone)]
    pub(super) struct Ports(pub(super) Vec<u16>);

    impl FromStr for Ports {
        type Err = std::num::ParseIntError;

        fn from_str(text: &str) -> Result<Self, Self::Err> {
            let mut ports = Vec::new();
            for part in text.split(',') {
                let (first, last) = part.split_once('-').unwrap_or((part, part));
                ports.extend(first.parse::<u16>()?..=last.parse()?);
            }
            Ok(Self(ports))
        }
    }
}
