//! How the daemon is watched, asked over HTTP as Prometheus, a probe or a browser would.
#![allow(clippy::float_cmp, reason = "what is compared are counts, which Prometheus writes as floats")]

mod browser;
mod doors;
mod health;
mod metrics;
mod page;

use std::collections::BTreeMap;

use reprovisiond::simulator::Simulator;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Daemon, Scratch};

/// Any port of this host.
pub(crate) const ANY_PORT: &str = "[ops]\nlisten = \"127.0.0.1:0\"\n";

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// By lower-case name.
    headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

/// A daemon that is watched at `address`.
struct Watched {
    daemon: Daemon,
    address: String,
}

impl Watched {
    /// Starts a daemon on any port, with `settings` beside.
    async fn start(scratch: &Scratch, simulator: &Simulator, settings: &str) -> Self {
        let daemon = Daemon::start(scratch, simulator, &format!("{settings}{ANY_PORT}")).await;
        let address = address(&daemon);
        Self { daemon, address }
    }

    /// The same, by a command that becomes it.
    async fn start_under(scratch: &Scratch, simulator: &Simulator, settings: &str, under: &[&str]) -> Self {
        let mut daemon = Daemon::migrated(&scratch.url, simulator, &format!("{settings}{ANY_PORT}")).await;
        daemon.spawn(simulator, under);
        daemon.until_logged("the page are served").await;
        let address = address(&daemon);
        Self { daemon, address }
    }

    async fn get(&self, path: &str) -> Answer {
        get(&self.address, path).await
    }

    /// The value of the sample with this name and these labels.
    async fn metric(&self, sample: &str) -> f64 {
        value(&self.get("/metrics").await.body, sample)
    }
}

/// Where a daemon has said that it is watched.
pub(crate) fn address(daemon: &Daemon) -> String {
    let log = daemon.log();
    let line = log.iter().find(|line| line.contains("the page are served")).expect("it says where it is");
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    line["address"].as_str().unwrap().to_owned()
}

pub(crate) async fn get(address: &str, path: &str) -> Answer {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")).await
}

/// Sends a request as it stands.
async fn ask(address: &str, request: &str) -> Answer {
    exchange(TcpStream::connect(address).await.unwrap(), request).await
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> Answer {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text}"));
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    Answer { status, headers, body: body.to_owned() }
}

fn value(text: &str, sample: &str) -> f64 {
    let found = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("no {sample} in\n{text}")).parse().unwrap()
}
