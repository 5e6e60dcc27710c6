//! `health`: asks the daemon on this host whether it works, for probes that can only run a command.

use std::time::Duration;

use axum::body::Body;
use clap::Args;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::{Exit, Failure, Global};
use crate::config::{self, Listen, Sources};

/// How long the daemon may take to answer. `/healthz` asks nothing of a database; `/readyz` waits for its answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// Characters of an answer that are read.
const LONGEST: usize = 64 * 1024;

/// Ask the daemon on this host whether it works
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  reprovisiond health --config /etc/reprovisiond/reprovisiond.toml
  reprovisiond health --ready

Asks /healthz, or with --ready /readyz, where ops.listen says, and prints the answer. It is for probes that run a command, as those of
Kubernetes and of containers do; it reads no secret.

Exit codes: 0 it works, or is ready; 1 it does not, and what is printed says why; 69 nothing answers there; 78 ops.listen is not
set")]
pub(super) struct HealthArgs {
    /// Whether it could work, too: database, schema, token, no blocked tenant
    #[arg(long)]
    ready: bool,
}

pub(super) async fn run(global: &Global, args: &HealthArgs) -> Result<(), Failure> {
    let listen = config::load_listen(&Sources::from_process(global.config.clone(), global.database.clone()))?;
    let path = if args.ready { "/readyz" } else { "/healthz" };
    let asked = tokio::time::timeout(PATIENCE, async {
        match &listen {
            Listen::Off => Err(Failure::new(
                Exit::Configuration,
                "ops.listen is not set: give the daemon a place to say how it is, such as \"127.0.0.1:9464\" or \
                 \"unix:/run/reprovisiond/ops.sock\", and restart it",
            )),
            Listen::Tcp(address) => ask(TcpStream::connect(address).await, path).await.map_err(|why| at(&listen, why)),
            Listen::Unix(file) => ask(UnixStream::connect(file).await, path).await.map_err(|why| at(&listen, why)),
        }
    });
    let (status, said) = asked.await.unwrap_or_else(|_| Err(at(&listen, format!("no answer within {PATIENCE:?}"))))?;
    super::print(&format!("{}\n", said.trim_end()))?;
    if status == StatusCode::OK { Ok(()) } else { Err(Failure::new(Exit::Failure, "")) }
}

fn at(listen: &Listen, why: impl std::fmt::Display) -> Failure {
    Failure::new(
        Exit::Unavailable,
        format!("ops.listen: {listen}: {why}: does the daemon run, and with this configuration?"),
    )
}

async fn ask<S>(
    stream: std::io::Result<S>,
    path: &str,
) -> Result<(StatusCode, String), Box<dyn std::error::Error + Send + Sync>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream?)).await?;
    // It ends with the answer, or with this process.
    tokio::spawn(connection);
    let answer = sender.send_request(Request::get(path).header(HOST, "localhost").body(Body::empty())?).await?;
    let status = answer.status();
    let body = axum::body::to_bytes(Body::new(answer.into_body()), LONGEST).await?;
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}
