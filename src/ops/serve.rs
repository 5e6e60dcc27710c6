//! Connections, and what bounds each: a slow or greedy client costs a place among a few, for a while.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tower_service::Service as _;

use super::Listener;

/// Connections at once. Further ones wait in the listener's own queue.
const CONNECTIONS: usize = 32;

/// How long a client may take for its request's head.
const HEAD: Duration = Duration::from_secs(5);

/// How long a connection may last, for one request and its answer: the longest CSV on a slow line.
const WHOLE: Duration = Duration::from_mins(1);

/// The longest head.
const HEAD_BYTES: usize = 16 * 1024;

/// Time until the system is asked for a connection again after it had none to give, such as for want of file descriptors.
const AGAIN: Duration = Duration::from_secs(1);

/// Serves until it is dropped, and its connections with it.
pub(super) async fn serve(listener: &Listener, app: Router) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let app = app.clone();
        let accepted = match listener {
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                connections.spawn(async move {
                    connection(stream, app).await;
                    drop(place);
                });
            }),
            Listener::Unix(listener, _) => listener.accept().await.map(|(stream, _)| {
                connections.spawn(async move {
                    connection(stream, app).await;
                    drop(place);
                });
            }),
        };
        if accepted.is_err() {
            tokio::time::sleep(AGAIN).await;
        }
        while connections.try_join_next().is_some() {}
    }
}

/// One request and its answer. What goes wrong on the way is the client's affair.
async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, app: Router) {
    let service = service_fn(move |request: Request<Incoming>| {
        let mut app = app.clone();
        async move {
            let Ok(answer) = app.call(request.map(Body::new)).await;
            Ok::<_, Infallible>(answer)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    let _ = tokio::time::timeout(WHOLE, served).await;
}
