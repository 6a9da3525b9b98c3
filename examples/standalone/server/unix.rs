//! Unix sockets: files that stay behind when a program dies, and that nobody else is to find open.

use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as Probe;
use std::path::{Path, PathBuf};

use gateway_transport_grpc::LenientAuthority;
use tokio::net::{UnixListener, UnixStream};

use super::Listen;

/// A Unix socket that is listened at. Its file goes with it.
pub(crate) struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Which file it was: somebody may have put another in its place.
    file: (u64, u64),
}

/// Listens at a Unix socket whose file has these permissions. A socket that nobody listens at any more is replaced.
///
/// # Errors
/// There is something else at that path, somebody listens there, or it cannot be made; the message names the path.
pub(crate) fn listen_unix(path: &Path, mode: u32) -> io::Result<UnixSocket> {
    let explain = |error: io::Error| {
        io::Error::new(error.kind(), format!("cannot listen at unix:{}: {error}", path.display()))
    };
    remove_stale(path).map_err(explain)?;
    let listener = UnixListener::bind(path).map_err(explain)?;
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(explain)?;
    let file = identity(path).map_err(explain)?;
    Ok(UnixSocket { listener, path: path.to_owned(), file })
}

fn remove_stale(path: &Path) -> io::Result<()> {
    let there = match fs::symlink_metadata(path) {
        Ok(there) => there,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !there.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
    }
    match Probe::connect(path) {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another program listens there")),
        // Nobody does: a program ended without removing it.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let file = fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}

impl Listen for UnixSocket {
    // As clients of gRPC name it, which a Unix socket is for here.
    type Stream = LenientAuthority<UnixStream>;

    async fn accept(&self) -> io::Result<(Self::Stream, Option<SocketAddr>)> {
        let (stream, _) = self.listener.accept().await?;
        Ok((LenientAuthority::new(stream), None))
    }
}

impl fmt::Display for UnixSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unix:{}", self.path.display())
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|file| file == self.file) {
            // Left behind, it is found stale at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}
