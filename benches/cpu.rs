//! P4: the CPU time that the daemon's process uses for a device, at 100 devices a call; on SQLite that is the database's
//! too. Beside it the Python script, and on Postgres graphile_worker with a job a device, in turn.
//!
//! ```sh
//! tests/with-postgres --durable cargo bench -- cpu
//! tests/with-postgres --durable cargo bench -- cpu --devices 20000 --turns 1
//! ```
//!
//! Daemon and script make real HTTP calls to the simulated Graph, which answers at once; its own time is not counted.

use std::time::Duration;

use crate::support::daemon::{Daemon, UNTHROTTLED, configure, migrate, simulator, until_all_ended};
use crate::support::database::{BOTH, Database, Kind};
use crate::support::peers::{self, Run};
use crate::support::report::{Goal, Report};
use clap::Args;
use reprovisiond::simulator::Throttle;

#[derive(Args)]
pub struct Arguments {
    /// Devices of each measurement
    #[arg(long, default_value_t = 50_000)]
    devices: usize,
    /// How often each is measured, one after the other
    #[arg(long, default_value_t = 5)]
    turns: usize,
}

const BATCH: usize = 100;

pub async fn run(arguments: Arguments) {
    peers::build();
    peers::install_python();
    let n = arguments.devices;
    let mut report = Report::new("cpu");
    for kind in BOTH {
        let (mut ours, mut ours_a_second) = (Vec::new(), Vec::new());
        let (mut script, mut script_a_second, mut graphile) = (Vec::new(), Vec::new(), Vec::new());
        for turn in 1..=arguments.turns {
            let run = measure(kind, n).await;
            ours.push(run.cpu_us_each());
            ours_a_second.push(run.per_second());
            let (database, simulator) = (Database::new(kind).await, simulator(Duration::ZERO, Throttle::Off));
            let run =
                tokio::task::spawn_blocking(move || peers::script(&database, &simulator, n, BATCH)).await.unwrap();
            script.push(run.cpu_us_each());
            script_a_second.push(run.per_second());
            if kind == Kind::Postgres {
                let run: Run = peers::run("graphile", &Database::new(kind).await, &[n.to_string()]);
                graphile.push(run.cpu_us_each());
            }
            println!("{kind}, turn {turn}: ours {:.2} µs a device, script {:.2} µs", ours[turn - 1], script[turn - 1]);
        }
        let goal = Goal::ValueAtMost(if kind == Kind::Postgres { 5.0 } else { 10.0 });
        let what = format!("{kind}, client CPU");
        report.ratio("P4", what.clone(), "µs/device", &ours, ("Python script", &script), goal);
        if kind == Kind::Postgres {
            report.ratio("P4", what, "µs/device", &ours, ("graphile_worker", &graphile), Goal::None);
        }
        let what = format!("{kind}, through HTTP");
        report.ratio("P3", what, "devices/s", &ours_a_second, ("Python script", &script_a_second), Goal::None);
    }
    report.end();
}

/// A daemon that has been running for a while gets `n` requests.
async fn measure(kind: Kind, n: usize) -> Run {
    let (database, simulator) = (Database::new(kind).await, simulator(Duration::ZERO, Throttle::Off));
    let config = configure(&database, &simulator, UNTHROTTLED);
    migrate(&config);
    let (daemon, _) = Daemon::start_until_ready(&config);
    let mut client = database.connect().await;
    // Opens connections and fetches a token.
    client.insert(BATCH).await;
    until_all_ended(&mut client, Duration::from_mins(1)).await;
    let before = daemon.cpu_seconds();
    client.insert(n).await;
    until_all_ended(&mut client, Duration::from_mins(10)).await;
    let seconds = client.span_of_calls("sent_at > (SELECT min(finished_at) FROM graph_calls)").await;
    Run { n, seconds, cpu_seconds: daemon.cpu_seconds() - before }
}
