//! What a person feels of a running daemon: how soon a request is on the wire, and what an idle one costs.
//!
//! ```sh
//! tests/with-postgres --durable cargo bench --bench service
//! ```
//!
//! The daemon is the release binary as a process of its own, with its default settings; requests come from this process,
//! one at a time at random moments; the simulated Graph says when each was on the wire. Figures of one machine and one
//! run: compare the two databases, and two versions on one machine, not machines.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a measurement looks at the clock, and ends where it cannot go on"
)]

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use chrono::{DateTime, Utc};
use reprovisiond::simulator::{Options, Shares, Simulator, Throttle};
use sqlx::{Connection as _, PgConnection, SqliteConnection};

/// Requests whose way is timed.
const REQUESTS: usize = 200;

/// How long an idle daemon is watched.
const IDLE: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() {
    let dir = tempfile::tempdir().unwrap();
    let sqlite = format!("sqlite:{}", dir.path().join("queue.db").display());
    let postgres = std::env::var("TEST_POSTGRES_URL")
        .expect("TEST_POSTGRES_URL: run this as `tests/with-postgres --durable cargo bench --bench service`");

    println!("{:<10} {:>14} {:>14} {:>18} {:>10}", "", "pick-up p50", "pick-up p99", "idle CPU per hour", "idle RSS");
    for (name, url) in [("SQLite", sqlite), ("Postgres", postgres)] {
        let figures = measure(&url, dir.path()).await;
        println!(
            "{name:<10} {:>11.1} ms {:>11.1} ms {:>16.1} s {:>7.1} MB",
            figures.median_ms, figures.p99_ms, figures.cpu_s_per_hour, figures.rss_mb
        );
    }
}

struct Figures {
    median_ms: f64,
    p99_ms: f64,
    cpu_s_per_hour: f64,
    rss_mb: f64,
}

async fn measure(url: &str, dir: &std::path::Path) -> Figures {
    let options =
        Options { devices: REQUESTS + 10, shares: Shares::NONE, throttle: Throttle::Off, ..Options::default() };
    let simulator = Simulator::start(options).unwrap();
    let config = dir.join("reprovisiond.toml");
    std::fs::write(&config, toml(url, &simulator)).unwrap();
    assert!(command(&config, "migrate").status().unwrap().success());
    let daemon = Daemon(command(&config, "run").spawn().unwrap());
    let mut producer = Producer::connect(url).await;

    // The first ones open connections and fetch a token: not what is measured.
    let mut sent = Vec::new();
    for (n, device) in simulator.devices().iter().skip(2).take(REQUESTS + 5).enumerate() {
        let at = Utc::now();
        producer.insert(&device.managed_device_id.to_string()).await;
        sent.push(at);
        arrived(&simulator, n).await;
        // Longer than the rate budget holds the next call back, and no rhythm that the daemon's own could fall into.
        tokio::time::sleep(Duration::from_millis(210 + (n as u64 * 37) % 61)).await;
    }
    let mut waits: Vec<f64> =
        sent.iter().zip(simulator.requests()).skip(5).map(|(sent, request)| milliseconds(*sent, request.at)).collect();
    waits.sort_by(f64::total_cmp);

    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = daemon.cpu_seconds();
    tokio::time::sleep(IDLE).await;
    let used = daemon.cpu_seconds() - before;
    Figures {
        median_ms: waits[waits.len() / 2],
        p99_ms: waits[waits.len() * 99 / 100],
        cpu_s_per_hour: used * 3600.0 / IDLE.as_secs_f64(),
        rss_mb: daemon.rss_mb(),
    }
}

/// Somebody else's connection.
enum Producer {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Producer {
    async fn connect(url: &str) -> Self {
        if url.starts_with("sqlite:") {
            Self::Sqlite(SqliteConnection::connect(url).await.unwrap())
        } else {
            Self::Postgres(PgConnection::connect(url).await.unwrap())
        }
    }

    async fn insert(&mut self, device: &str) {
        let insert = "INSERT INTO reprovision_requests (managed_device_id) VALUES ($1)";
        match self {
            Self::Sqlite(connection) => drop(sqlx::query(insert).bind(device).execute(connection).await.unwrap()),
            Self::Postgres(connection) => drop(sqlx::query(insert).bind(device).execute(connection).await.unwrap()),
        }
    }
}

async fn arrived(simulator: &Simulator, n: usize) {
    let patience = std::time::Instant::now();
    while simulator.requests().len() <= n {
        assert!(patience.elapsed() < Duration::from_mins(1), "request {n} never came to the simulated Graph");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn milliseconds(from: DateTime<Utc>, to: DateTime<Utc>) -> f64 {
    (to - from).num_microseconds().unwrap() as f64 / 1000.0
}

fn toml(url: &str, simulator: &Simulator) -> String {
    format!(
        "[database]\nurl = {url:?}\n[tenants.default]\ncloud = \"custom\"\ngraph_url = {:?}\nauthority_url = {:?}\ntenant_id = \"{}\"\nclient_id = \"{}\"\nclient_secret_file = \"{}\"\n",
        simulator.graph_url(),
        simulator.authority_url(),
        simulator.tenant_id(),
        simulator.client_id(),
        simulator.client_secret_file().display()
    )
}

fn command(config: &std::path::Path, name: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reprovisiond"));
    command.args([name, "--config"]).arg(config).stdin(Stdio::null()).stdout(Stdio::null());
    command.env("REPROVISIOND_LOG", "warn");
    command
}

struct Daemon(Child);

impl Daemon {
    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.0.id())).unwrap()
    }

    /// User and system time, from fields 14 and 15 of `stat`.
    fn cpu_seconds(&self) -> f64 {
        let stat = self.proc("stat");
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let ticks: u64 = fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        ticks as f64 / rustix::param::clock_ticks_per_second() as f64
    }

    fn rss_mb(&self) -> f64 {
        let status = self.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
