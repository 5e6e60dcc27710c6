//! P5 and P6: how soon a request is on the wire, and what an idle daemon costs; on Postgres beside graphile_worker.
//!
//! ```sh
//! tests/with-postgres --durable cargo bench -- service
//! tests/with-postgres --durable cargo bench -- service --requests 20 --idle 5 --turns 1
//! ```
//!
//! The daemon has its default settings; requests come from this process, one at a time at random moments; the simulated
//! Graph says when each was on the wire. A peer's job is picked up when its handler begins, in the process that added it.

use std::time::{Duration, Instant};

use crate::support::daemon::{Daemon, configure, migrate, simulator};
use crate::support::database::{BOTH, Database, Kind};
use crate::support::report::{Goal, Report};
use crate::support::{median, peers, percentile};
use chrono::{DateTime, Utc};
use clap::Args;
use reprovisiond::simulator::{Simulator, Throttle};
use serde::Deserialize;

#[derive(Args)]
pub struct Arguments {
    /// Requests whose way is timed
    #[arg(long, default_value_t = 200)]
    requests: usize,
    /// Seconds that an idle daemon is watched
    #[arg(long, default_value_t = 30)]
    idle: u64,
    /// How often each is measured, one after the other
    #[arg(long, default_value_t = 1)]
    turns: usize,
}

/// What is left out: the first requests open connections and fetch a token.
const FIRST: usize = 5;

#[derive(Deserialize)]
struct Figures {
    median_ms: f64,
    p99_ms: f64,
    cpu_s_per_hour: f64,
    rss_mb: f64,
}

/// Each figure: its name, its unit, where it stands, and its goals on Postgres and on SQLite.
type Row = (&'static str, &'static str, &'static str, fn(&Figures) -> f64, [f64; 2]);

const ROWS: [Row; 4] = [
    ("P5", "INSERT to the wire, median", "ms", |figures| figures.median_ms, [3.0, 15.0]),
    ("P5", "INSERT to the wire, 99th percentile", "ms", |figures| figures.p99_ms, [10.0, 40.0]),
    ("P6", "CPU an idle hour", "s", |figures| figures.cpu_s_per_hour, [2.0, 5.0]),
    ("P6", "memory", "MB", |figures| figures.rss_mb, [15.0, 15.0]),
];

pub async fn run(arguments: Arguments) {
    peers::build();
    let mut report = Report::new("service");
    let (mut ours, mut graphile) = (BOTH.map(|_| Vec::new()), Vec::new());
    for turn in 1..=arguments.turns {
        for (kind, figures) in BOTH.into_iter().zip(&mut ours) {
            figures.push(measure(kind, &arguments).await);
        }
        let args = [arguments.requests.to_string(), arguments.idle.to_string()];
        graphile.push(peers::run::<Figures>("graphile-service", &Database::new(Kind::Postgres).await, &args));
        println!("turn {turn} of {}", arguments.turns);
    }
    for (i, kind) in BOTH.into_iter().enumerate() {
        for (id, what, unit, figure, goals) in ROWS {
            let samples: Vec<f64> = ours[i].iter().map(figure).collect();
            let theirs: Vec<f64> = graphile.iter().map(figure).collect();
            let (what, goal) = (format!("{kind}, {what}"), Goal::ValueAtMost(goals[i]));
            if kind == Kind::Postgres {
                report.ratio(id, what, unit, &samples, ("graphile_worker", &theirs), goal);
            } else {
                report.value(id, what, unit, &samples, goal);
            }
        }
    }
    report.end();
}

async fn measure(kind: Kind, arguments: &Arguments) -> Figures {
    let (database, simulator) = (Database::new(kind).await, simulator(Duration::ZERO, Throttle::Off));
    let config = configure(&database, &simulator, "");
    migrate(&config);
    let daemon = Daemon::start(&config);
    let mut producer = database.connect().await;

    let mut sent = Vec::new();
    for n in 0..arguments.requests + FIRST {
        let device = uuid::Uuid::new_v4();
        let insert = format!("INSERT INTO reprovision_requests (managed_device_id) VALUES ('{device}')");
        sent.push(Utc::now());
        producer.execute(&insert).await;
        arrived(&simulator, n).await;
        // Longer than the rate budget holds the next call back, and no rhythm that the daemon's own could fall into.
        tokio::time::sleep(Duration::from_millis(210 + (n as u64 * 37) % 61)).await;
    }
    let arrivals = simulator.requests();
    let waits: Vec<f64> =
        sent.iter().zip(&arrivals).skip(FIRST).map(|(sent, request)| milliseconds(*sent, request.at)).collect();

    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = daemon.cpu_seconds();
    tokio::time::sleep(Duration::from_secs(arguments.idle)).await;
    let used = daemon.cpu_seconds() - before;
    Figures {
        median_ms: median(&waits),
        p99_ms: percentile(&waits, 99),
        cpu_s_per_hour: used * 3600.0 / arguments.idle as f64,
        rss_mb: daemon.memory_mb("VmRSS"),
    }
}

async fn arrived(simulator: &Simulator, n: usize) {
    let patience = Instant::now();
    while simulator.requests().len() <= n {
        assert!(patience.elapsed() < Duration::from_mins(1), "request {n} never came to the simulated Graph");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn milliseconds(from: DateTime<Utc>, to: DateTime<Utc>) -> f64 {
    (to - from).num_microseconds().unwrap() as f64 / 1000.0
}
