//! Where health, metrics and the page are served.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// `ops.listen`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// Nowhere.
    Off,
    /// A port of this host, for this host.
    Tcp(SocketAddr),
    /// A Unix socket, whose file's mode says who may connect.
    Unix(PathBuf),
}

/// Why a text is no place to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotAListener {
    #[error("neither an IP address with a port nor unix:PATH")]
    Unreadable,
    #[error("not a loopback address: these pages ask nobody who they are, so they are for this host only")]
    NotLoopback,
    #[error("not an absolute path")]
    RelativePath,
}

impl Listen {
    pub(super) fn parse(text: &str) -> Result<Self, NotAListener> {
        if text.is_empty() {
            return Ok(Self::Off);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return if path.is_absolute() { Ok(Self::Unix(path)) } else { Err(NotAListener::RelativePath) };
        }
        let address =
            text.strip_prefix("localhost:").map_or_else(|| text.to_owned(), |port| format!("127.0.0.1:{port}"));
        let address: SocketAddr = address.parse().map_err(|_| NotAListener::Unreadable)?;
        let loopback = match address.ip() {
            IpAddr::V4(ip) => ip.is_loopback(),
            IpAddr::V6(ip) => ip.is_loopback(),
        };
        if loopback { Ok(Self::Tcp(address)) } else { Err(NotAListener::NotLoopback) }
    }
}

impl NotAListener {
    pub(super) fn remedy(self) -> &'static str {
        match self {
            Self::Unreadable => "write 127.0.0.1:9464, unix:/run/reprovisiond/ops.sock, or nothing for off",
            Self::NotLoopback => {
                "write 127.0.0.1 and the port, and let a reverse proxy that asks for a name stand before it"
            }
            Self::RelativePath => "write the socket's whole path, such as unix:/run/reprovisiond/ops.sock",
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => Ok(()),
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_host_is_listened_to() {
        for text in ["", "127.0.0.1:9464", "127.8.8.8:0", "[::1]:9464", "unix:/run/reprovisiond/ops.sock"] {
            assert_eq!(Listen::parse(text).map(|listen| listen.to_string()).as_deref(), Ok(text));
        }
        assert_eq!(Listen::parse("localhost:80").map(|listen| listen.to_string()).as_deref(), Ok("127.0.0.1:80"));
        for text in ["0.0.0.0:9464", "[::]:9464", "10.0.0.1:80", "[::ffff:127.0.0.1]:80", "192.168.1.1:9464"] {
            assert_eq!(Listen::parse(text), Err(NotAListener::NotLoopback), "{text}");
        }
        for text in ["9464", ":9464", "example.org:80", "127.0.0.1", "127.0.0.1:99999", "http://127.0.0.1:80"] {
            assert_eq!(Listen::parse(text), Err(NotAListener::Unreadable), "{text}");
        }
        assert_eq!(Listen::parse("unix:ops.sock"), Err(NotAListener::RelativePath));
    }
}
