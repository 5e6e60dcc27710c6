//! The port or the Unix socket.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use tokio::net::{TcpListener, UnixListener};

use crate::config::Listen;

/// Whoever is in the socket's group may look.
const MODE: u32 = 0o660;

/// An open port or socket.
pub enum Listener {
    /// A loopback port.
    Tcp(TcpListener),
    /// A Unix socket, whose file goes with it.
    Unix(UnixListener, File),
}

/// The socket's file.
pub struct File {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl File {
    fn at(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), identity: identity(path)? })
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = std::fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

impl Drop for File {
    fn drop(&mut self) {
        // Unless somebody else's is there now. What stays behind is replaced at the next start.
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Why nothing can be served.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else is there.
    #[error("ops.listen: {0} is in use by another process that answers: stop it, or choose another place")]
    Taken(String),
    /// The path is something else's.
    #[error("ops.listen: {0} is there and is no socket: remove it, or choose another path")]
    NoSocket(String),
    /// The system refuses it.
    #[error("ops.listen: {0} cannot be listened on: {1}")]
    Io(String, io::Error),
}

impl Listener {
    pub(super) fn open(listen: &Listen) -> Result<Option<Self>, ListenError> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::AddrInUse => ListenError::Taken(listen.to_string()),
            _ => ListenError::Io(listen.to_string(), error),
        };
        match listen {
            Listen::Off => Ok(None),
            Listen::Tcp(address) => {
                let listener = std::net::TcpListener::bind(address).map_err(failed)?;
                listener.set_nonblocking(true).map_err(failed)?;
                Ok(Some(Self::Tcp(TcpListener::from_std(listener).map_err(failed)?)))
            }
            Listen::Unix(path) => {
                clear(path).map_err(|why| why.unwrap_or_else(failed))?;
                // Bound with this mode, not given it afterwards: there is no moment at which others may connect.
                let others = rustix::process::umask(Mode::from_bits_truncate(!MODE & 0o777));
                let bound = UnixListener::bind(path);
                rustix::process::umask(others);
                let listener = bound.map_err(failed)?;
                let file = File::at(path).map_err(failed)?;
                Ok(Some(Self::Unix(listener, file)))
            }
        }
    }

    /// Where it is: with the port that was given, where any would do.
    pub fn address(&self) -> String {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(|at| at.to_string()).unwrap_or_default(),
            Self::Unix(_, file) => format!("unix:{}", file.path.display()),
        }
    }
}

/// What keeps a path from being cleared: a reason of ours, or the system's.
enum Kept {
    Ours(ListenError),
    System(io::Error),
}

impl Kept {
    fn unwrap_or_else(self, system: impl FnOnce(io::Error) -> ListenError) -> ListenError {
        match self {
            Self::Ours(error) => error,
            Self::System(error) => system(error),
        }
    }
}

/// Removes a socket that a killed daemon has left, and nothing else.
fn clear(path: &Path) -> Result<(), Kept> {
    let shown = || path.display().to_string();
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Kept::System(error)),
        Ok(found) if !found.file_type().is_socket() => Err(Kept::Ours(ListenError::NoSocket(shown()))),
        Ok(_) => match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path).map_err(Kept::System)
            }
            Err(error) => Err(Kept::System(error)),
            Ok(_) => Err(Kept::Ours(ListenError::Taken(shown()))),
        },
    }
}
