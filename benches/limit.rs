//! P1: a large job against a Graph that throttles as Microsoft publishes (100 calls in 20 seconds) and takes 200 ms a call:
//! how close it comes to 5 calls a second, and whether Graph ever has to refuse one.
//!
//! ```sh
//! tests/with-postgres --durable cargo bench -- limit
//! tests/with-postgres --durable cargo bench -- limit --devices 100000     # 200 s
//! ```
//!
//! Five calls a second are no load, so all jobs run beside each other, each with a database and a Graph of its own. What
//! they took, and the refusals, are counted by the simulated Graph.

use std::time::Duration;

use crate::support::daemon::{Daemon, configure, migrate, simulator, until_all_ended};
use crate::support::database::{BOTH, Database, Kind};
use crate::support::peers;
use crate::support::report::{Goal, Report};
use chrono::TimeDelta;
use clap::Args;
use reprovisiond::simulator::Throttle;

#[derive(Args)]
pub struct Arguments {
    /// Devices of each job; 500 take a second
    #[arg(long, default_value_t = 30_000)]
    devices: usize,
}

const BATCH: usize = 100;
const CALLS_A_SECOND: f64 = 5.0;
const LATENCY: Duration = Duration::from_millis(200);

#[derive(Clone, Copy)]
struct Job {
    kind: Kind,
    workers: usize,
}

const JOBS: [Job; 4] = [
    Job { kind: Kind::Postgres, workers: 1 },
    Job { kind: Kind::Postgres, workers: 2 },
    Job { kind: Kind::Postgres, workers: 5 },
    Job { kind: Kind::Sqlite, workers: 1 },
];

pub async fn run(arguments: Arguments) {
    let n = arguments.devices;
    peers::install_python();
    let mut report = Report::new("limit");
    let scripts = BOTH.map(|kind| tokio::spawn(script(kind, n)));
    let jobs = JOBS.map(|job| (job, tokio::spawn(measure(job, n))));
    let floor = (n.div_ceil(BATCH)) as f64 / CALLS_A_SECOND;
    for (job, measured) in jobs {
        let (seconds, refused, late) = measured.await.unwrap();
        let workers = if job.workers == 1 { "worker" } else { "workers" };
        let what = format!("{}, {} {workers}, {n} devices", job.kind, job.workers);
        report.ratio("P1", what.clone(), "s", &[seconds], ("5 calls a second", &[floor]), Goal::RatioAtMost(1.01));
        let refusals = format!("{what}, refused after 1 s");
        report.value("P1", refusals, "calls", &[late as f64], Goal::ValueAtMost(0.0));
        report.fact(format!("{what}: {seconds:.2} s, floor {floor:.2} s, {refused} calls refused in all"));
    }
    for (kind, script) in BOTH.into_iter().zip(scripts) {
        let seconds = script.await.unwrap();
        report.ratio(
            "P1",
            format!("Python script, {kind}"),
            "s",
            &[seconds],
            ("5 calls a second", &[floor]),
            Goal::None,
        );
    }
    report.end();
}

/// From the first call's arrival at Graph to the last answer; refusals; and refusals after the first second.
async fn measure(job: Job, n: usize) -> (f64, usize, usize) {
    let (database, simulator) = (Database::new(job.kind).await, simulator(LATENCY, Throttle::PUBLISHED));
    let config = configure(&database, &simulator, "");
    migrate(&config);
    let mut client = database.connect().await;
    client.request(n).await;
    let _workers: Vec<Daemon> = (0..job.workers).map(|_| Daemon::start(&config)).collect();
    until_all_ended(&mut client, Duration::from_mins(20)).await;
    assert_eq!(simulator.ledger().len(), n, "each device is reprovisioned once");
    let requests = simulator.requests();
    let (first, last) = (requests[0].at, requests.iter().filter_map(|request| request.answered_at).max().unwrap());
    let refused: Vec<_> = requests.iter().filter(|request| request.status == Some(429)).collect();
    let late = refused.iter().filter(|request| request.at > first + TimeDelta::seconds(1)).count();
    ((last - first).as_seconds_f64(), refused.len(), late)
}

async fn script(kind: Kind, n: usize) -> f64 {
    let (database, simulator) = (Database::new(kind).await, simulator(LATENCY, Throttle::PUBLISHED));
    tokio::task::spawn_blocking(move || peers::script(&database, &simulator, n, BATCH).seconds).await.unwrap()
}
