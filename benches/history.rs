//! P7: what a device costs with years of history and a long queue, beside what it costs in a young database.
//!
//! ```sh
//! tests/with-postgres --durable cargo bench -- history
//! tests/with-postgres --durable cargo bench -- history --history 10000000 --waiting 1000000   # the goal's size: some 10 GB
//! tests/with-postgres --durable cargo bench -- history --without-device-index                 # what that index is of it
//! ```
//!
//! The two databases of a kind stand beside each other and are measured in turn, each time with the same number of new
//! requests that are due, and a Graph that answers at once: what the goal is about is the database.

use std::path::PathBuf;
use std::time::Instant;

use crate::support::client::Client;
use crate::support::daemon::{UNTHROTTLED, configure, migrate, simulator};
use crate::support::database::{BOTH, Database, Kind};
use crate::support::prompt;
use crate::support::report::{Goal, Report};
use clap::Args;
use reprovisiond::simulator::{Simulator, Throttle};

#[derive(Args)]
pub struct Arguments {
    /// Requests that have ended, in the old database
    #[arg(long, default_value_t = 1_000_000)]
    history: usize,
    /// Requests that wait, in the old database
    #[arg(long, default_value_t = 100_000)]
    waiting: usize,
    /// New requests of each measurement
    #[arg(long, default_value_t = 20_000)]
    devices: usize,
    /// How often each is measured, one after the other
    #[arg(long, default_value_t = 7)]
    turns: usize,
    /// Both without the index of results by device, whose entries come in no order
    #[arg(long)]
    without_device_index: bool,
}

/// History and queue of the young database.
const YOUNG: usize = 10_000;

pub async fn run(arguments: Arguments) {
    let mut report = Report::new("history");
    for kind in BOTH {
        let mut young = Aged::new(kind, YOUNG, YOUNG).await;
        let mut old = Aged::new(kind, arguments.history, arguments.waiting).await;
        if arguments.without_device_index {
            for aged in [&mut young, &mut old] {
                aged.client.execute("DROP INDEX device_results_device").await;
            }
        }
        report.fact(format!(
            "{kind}: {} in history and {} waiting, written in {:.0} s",
            arguments.history, arguments.waiting, old.seconds
        ));
        let (mut of_young, mut of_old) = (Vec::new(), Vec::new());
        for turn in 1..=arguments.turns {
            of_young.push(young.microseconds_each(arguments.devices).await);
            of_old.push(old.microseconds_each(arguments.devices).await);
            println!(
                "{kind}, turn {turn}: old {:.1} µs a device, young {:.1} µs",
                of_old[turn - 1],
                of_young[turn - 1]
            );
        }
        let what = format!("{kind}, {} in history, {} waiting", arguments.history, arguments.waiting);
        report.ratio("P7", what, "µs/device", &of_old, ("10,000 and 10,000", &of_young), Goal::RatioAtMost(1.1));
    }
    report.end();
}

struct Aged {
    config: PathBuf,
    client: Client,
    seconds: f64,
    _database: Database,
    _simulator: Simulator,
}

impl Aged {
    async fn new(kind: Kind, history: usize, waiting: usize) -> Self {
        let database = Database::new(kind).await;
        let simulator = simulator(std::time::Duration::ZERO, Throttle::Off);
        let config = configure(&database, &simulator, UNTHROTTLED);
        migrate(&config);
        let mut client = database.connect().await;
        let started = Instant::now();
        client.fill(history, waiting).await;
        let seconds = started.elapsed().as_secs_f64();
        Self { config, client, seconds, _database: database, _simulator: simulator }
    }

    async fn microseconds_each(&mut self, n: usize) -> f64 {
        self.client.request(n).await;
        prompt::drain(&self.config, &mut self.client, n).await * 1e6 / n as f64
    }
}
