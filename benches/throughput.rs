//! P3: how many devices a second the engine and the database take through when Graph answers at once, with everything
//! written: intent, evidence, results. Beside it, in turn: the least that could be written, and other queues.
//!
//! ```sh
//! tests/with-postgres --durable cargo bench -- throughput
//! tests/with-postgres --durable cargo bench -- throughput --devices 10000 --turns 1
//! ```
//!
//! Other queues run an empty handler for each job, and write neither results nor evidence.

use crate::support::daemon::{UNTHROTTLED, configure, migrate, simulator};
use crate::support::database::{Database, Kind};
use crate::support::peers::{self, Run};
use crate::support::prompt;
use crate::support::report::{Goal, Report};
use clap::Args;

#[derive(Args)]
pub struct Arguments {
    /// Devices, and jobs of each peer
    #[arg(long, default_value_t = 50_000)]
    devices: usize,
    /// Jobs of huey and of apalis-sqlite, which slows down with the length of its queue
    #[arg(long, default_value_t = 3_000)]
    slow_jobs: usize,
    /// Jobs that apalis fetches at once, and has under way at once
    #[arg(long, default_value_t = 500)]
    apalis_batch: usize,
    /// How often each is measured, one after the other
    #[arg(long, default_value_t = 5)]
    turns: usize,
    /// Calls in flight at once
    #[arg(long, default_value_t = 16)]
    in_flight: usize,
    /// Without the yardsticks: for a profiler
    #[arg(long)]
    alone: bool,
    /// One of the databases only
    #[arg(long)]
    database: Option<Kind>,
}

const POSTGRES: [&str; 4] = ["floor", "floor-4", "graphile", "apalis-postgres"];
const SQLITE: [&str; 3] = ["rusqlite", "huey", "apalis-sqlite"];

pub async fn run(arguments: Arguments) {
    if !arguments.alone {
        peers::build();
        peers::install_python();
    }
    let mut report = Report::new("throughput");
    for (kind, names) in [(Kind::Postgres, &POSTGRES[..]), (Kind::Sqlite, &SQLITE[..])] {
        if arguments.database.is_some_and(|only| only != kind) {
            continue;
        }
        let names = if arguments.alone { &[] } else { names };
        let (mut ours, mut theirs) = (Vec::new(), vec![Vec::new(); names.len()]);
        for turn in 1..=arguments.turns {
            ours.push(measure(kind, &arguments).await);
            print!("{kind}, turn {turn}: ours {:.0}/s", ours[turn - 1]);
            for (name, samples) in names.iter().zip(&mut theirs) {
                let database = Database::new(kind).await;
                samples.push(peer(name, &database, &arguments).per_second());
                print!(", {name} {:.0}/s", samples[turn - 1]);
            }
            println!();
        }
        if arguments.alone {
            report.value("P3", format!("{kind}, no latency"), "devices/s", &ours, Goal::None);
        }
        for (name, samples) in names.iter().zip(&theirs) {
            let (goal, name) = match *name {
                "floor" => (Goal::RatioAtLeast(0.45), "floor, one loop"),
                "floor-4" => (Goal::None, "floor, four loops"),
                "graphile" => (Goal::RatioAtLeast(1.0), "graphile_worker"),
                "rusqlite" => (Goal::RatioAtLeast(0.5), "rusqlite"),
                "huey" | "apalis-sqlite" => (Goal::RatioAtLeast(10.0), *name),
                other => (Goal::None, other),
            };
            report.ratio("P3", format!("{kind}, no latency"), "devices/s", &ours, (name, samples), goal);
        }
    }
    report.end();
}

fn peer(name: &str, database: &Database, arguments: &Arguments) -> Run {
    let (devices, slow, batch) = (arguments.devices, arguments.slow_jobs, arguments.apalis_batch.to_string());
    match name {
        "huey" => peers::huey(database, slow),
        "apalis-sqlite" => peers::run(name, database, &[slow.to_string(), batch]),
        "apalis-postgres" => peers::run(name, database, &[devices.to_string(), batch]),
        _ => peers::run(name, database, &[devices.to_string()]),
    }
}

async fn measure(kind: Kind, arguments: &Arguments) -> f64 {
    let database = Database::new(kind).await;
    // Only for what the configuration must name: the engine here has a Graph in its own process.
    let simulator = simulator(std::time::Duration::ZERO, reprovisiond::simulator::Throttle::Off);
    let settings = format!("{UNTHROTTLED}worker.max_calls_in_flight = {}\n", arguments.in_flight);
    let config = configure(&database, &simulator, &settings);
    migrate(&config);
    let mut client = database.connect().await;
    client.request(arguments.devices).await;
    arguments.devices as f64 / prompt::drain(&config, &mut client, arguments.devices).await
}
