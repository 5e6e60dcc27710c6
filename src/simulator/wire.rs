//! Connections that can be reset on command. A handler cannot reach its socket; a switch shared with the connection
//! lets it say "no answer, and not politely".

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::{Extension, Router};
use axum_server::accept::Accept;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Resets the connection that a request came on.
#[derive(Debug, Clone, Default)]
pub(super) struct Switch(Arc<AtomicBool>);

impl Switch {
    /// From now on nothing is written to the connection, not even the end of TLS; the next attempt resets it.
    pub(super) fn cut(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_cut(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Gives every connection its [`Switch`]. It stands below TLS, so that a reset is one for HTTPS too.
#[derive(Debug, Clone, Copy)]
pub(super) struct Switched;

impl Accept<TcpStream, Router> for Switched {
    type Stream = Wire;
    type Service = Router;
    type Future = std::future::Ready<io::Result<(Wire, Router)>>;

    fn accept(&self, stream: TcpStream, router: Router) -> Self::Future {
        let switch = Switch::default();
        let wire = stream.set_nodelay(true).map(|()| Wire { stream, switch: switch.clone() });
        std::future::ready(wire.map(|wire| (wire, router.layer(Extension(switch)))))
    }
}

#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    switch: Switch,
}

impl Wire {
    fn reset(&self) -> io::Error {
        // Without lingering, closing sends RST where it would else send FIN: the client sees a reset, not an end.
        let _ = self.stream.set_zero_linger();
        io::ErrorKind::ConnectionReset.into()
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.switch.is_cut() {
            return Poll::Ready(Err(self.reset()));
        }
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.switch.is_cut() {
            return Poll::Ready(Err(self.reset()));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.switch.is_cut() {
            return Poll::Ready(Err(self.reset()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
