//! P2: with 200 ms a call, no throttle and 16 calls in flight, how close the daemon comes to 16 calls every 200 ms.
//!
//! ```sh
//! tests/with-postgres --durable cargo bench -- overlap
//! tests/with-postgres --durable cargo bench -- overlap --rounds 10 --turns 1
//! ```
//!
//! What a job takes is counted from its first intent to its last recorded answer. The Python script, which makes one call
//! after the other, takes a part of the job in the same turn.

use std::time::Duration;

use crate::support::daemon::{Daemon, UNTHROTTLED, configure, migrate, simulator, until_all_ended};
use crate::support::database::{BOTH, Database, Kind};
use crate::support::peers;
use crate::support::report::{Goal, Report};
use clap::Args;
use reprovisiond::simulator::Throttle;

#[derive(Args)]
pub struct Arguments {
    /// Calls that each of the 16 places makes
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// How often each is measured, one after the other
    #[arg(long, default_value_t = 3)]
    turns: usize,
}

const IN_FLIGHT: usize = 16;
const LATENCY: Duration = Duration::from_millis(200);

/// Calls of the script, which has one in flight.
const SCRIPT_CALLS: usize = 20;

pub async fn run(arguments: Arguments) {
    peers::install_python();
    let mut report = Report::new("overlap");
    for kind in BOTH {
        for (batch, goal) in [(100, 0.95), (500, 0.9)] {
            let ideal = (IN_FLIGHT * batch) as f64 / LATENCY.as_secs_f64();
            let (mut ours, mut script) = (Vec::new(), Vec::new());
            for turn in 1..=arguments.turns {
                ours.push(measure(kind, batch, arguments.rounds).await);
                let (database, simulator) = (Database::new(kind).await, simulator(LATENCY, Throttle::Off));
                let n = batch * SCRIPT_CALLS;
                let run = tokio::task::spawn_blocking(move || peers::script(&database, &simulator, n, batch));
                script.push(run.await.unwrap().per_second());
                println!(
                    "{kind}, {batch} a call, turn {turn}: {:.0}/s, ideal {ideal:.0}/s, script {:.0}/s",
                    ours[turn - 1],
                    script[turn - 1]
                );
            }
            let what = format!("{kind}, {batch} a call");
            let ideals = vec![ideal; ours.len()];
            report.ratio("P2", what.clone(), "devices/s", &ours, ("ideal", &ideals), Goal::RatioAtLeast(goal));
            report.ratio("P2", what, "devices/s", &ours, ("Python script", &script), Goal::None);
        }
    }
    report.end();
}

async fn measure(kind: Kind, batch: usize, rounds: usize) -> f64 {
    let (database, simulator) = (Database::new(kind).await, simulator(LATENCY, Throttle::Off));
    let settings = format!("{UNTHROTTLED}worker.max_calls_in_flight = {IN_FLIGHT}\nbatch.max_devices = {batch}\n");
    let config = configure(&database, &simulator, &settings);
    migrate(&config);
    let n = rounds * IN_FLIGHT * batch;
    let mut client = database.connect().await;
    client.request(n).await;
    let _daemon = Daemon::start(&config);
    until_all_ended(&mut client, Duration::from_mins(10)).await;
    assert_eq!(simulator.ledger().len(), n, "each device is reprovisioned once");
    n as f64 / client.span_of_calls("true").await
}
