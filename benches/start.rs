//! P8: how soon `run` is ready, how long a large CSV file takes to be queued, and whether memory grows with the queue, or with
//! what has been done.
//!
//! ```sh
//! tests/with-postgres --durable cargo bench -- start
//! tests/with-postgres --durable cargo bench -- start --rows 100000 --starts 5
//! tests/with-postgres --durable cargo bench -- start --rows 10000 --starts 1 --job 1000000   # memory over a million devices
//! ```

use std::io::Write as _;
use std::time::{Duration, Instant};

use crate::support::client::Client;
use crate::support::daemon::{Daemon, UNTHROTTLED, command, configure, memory_mb, migrate, simulator};
use crate::support::database::{BOTH, Database, Kind};
use crate::support::report::{Goal, Report};
use clap::Args;
use reprovisiond::simulator::Throttle;

#[derive(Args)]
pub struct Arguments {
    /// Lines of the CSV file
    #[arg(long, default_value_t = 1_000_000)]
    rows: usize,
    /// How often the daemon is started
    #[arg(long, default_value_t = 20)]
    starts: usize,
    /// Devices that a daemon takes through, from the first to the last, for its memory
    #[arg(long, default_value_t = 100_000)]
    job: usize,
}

/// The short queue that the long one's memory is compared with.
const SHORT: usize = 10_000;

/// Devices that a daemon takes through before its memory is read.
const DONE: i64 = 9_000;

pub async fn run(arguments: Arguments) {
    let mut report = Report::new("start");
    for kind in BOTH {
        let ready = starts(kind, arguments.starts).await;
        report.value("P8", format!("{kind}, `run` to READY"), "ms", &ready, Goal::ValueAtMost(100.0));
        let short = queue(kind, SHORT).await;
        let long = queue(kind, arguments.rows).await;
        let what = format!("{kind}, {} rows of CSV", arguments.rows);
        let goal = Goal::ValueAtMost(20.0 * arguments.rows as f64 / 1e6);
        report.value("P8", what.clone(), "s", &[long.seconds], goal);
        report.value("P8", format!("{what}, memory of `enqueue`"), "MB", &[long.enqueue_mb], Goal::None);
        let what = format!("{kind}, memory of `run`, {} queued", arguments.rows);
        report.ratio("P8", what, "MB", &[long.run_mb], ("10,000 queued", &[short.run_mb]), Goal::RatioAtMost(1.1));
        let what = format!("{kind}, memory of `run` over {} devices", arguments.job);
        let (tenth, end, seconds) = job(kind, arguments.job).await;
        report.fact(format!("{kind}: {} devices in {seconds:.0} s", arguments.job));
        report.ratio("P8", what, "MB", &[end], ("the first tenth", &[tenth]), Goal::RatioAtMost(1.1));
    }
    report.end();
}

/// The most memory that the daemon had had by the first tenth of a job, and by its end; and the seconds that it took.
async fn job(kind: Kind, devices: usize) -> (f64, f64, f64) {
    let (database, simulator) = (Database::new(kind).await, simulator(Duration::ZERO, Throttle::Off));
    let config = configure(&database, &simulator, UNTHROTTLED);
    migrate(&config);
    let mut client = database.connect().await;
    client.request(devices).await;
    let started = Instant::now();
    let daemon = Daemon::start(&config);
    let mut memory = Vec::new();
    for until in [devices / 10, devices] {
        while results(&mut client).await < i64::try_from(until).unwrap() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        memory.push(daemon.memory_mb("VmHWM"));
    }
    (memory[0], memory[1], started.elapsed().as_secs_f64())
}

async fn starts(kind: Kind, starts: usize) -> Vec<f64> {
    let (database, simulator) = (Database::new(kind).await, simulator(Duration::ZERO, Throttle::Off));
    let config = configure(&database, &simulator, "");
    migrate(&config);
    (0..starts).map(|_| Daemon::start_until_ready(&config).1.as_secs_f64() * 1000.0).collect()
}

struct Queued {
    seconds: f64,
    enqueue_mb: f64,
    run_mb: f64,
}

async fn queue(kind: Kind, rows: usize) -> Queued {
    let (database, simulator) = (Database::new(kind).await, simulator(Duration::ZERO, Throttle::Off));
    let config = configure(&database, &simulator, UNTHROTTLED);
    migrate(&config);
    let file = config.with_file_name("devices.csv");
    let mut csv = std::io::BufWriter::new(std::fs::File::create(&file).unwrap());
    writeln!(csv, "managed_device_id,reason").unwrap();
    for _ in 0..rows {
        writeln!(csv, "{},ticket 4711", uuid::Uuid::new_v4()).unwrap();
    }
    csv.into_inner().unwrap();

    let started = Instant::now();
    let mut enqueue = command(&config, &["enqueue", "--from", file.to_str().unwrap()]).spawn().unwrap();
    let mut enqueue_mb = 0.0;
    let status = loop {
        // A process that has ended has no memory any more.
        if let Ok(status) = std::fs::read_to_string(format!("/proc/{}/status", enqueue.id()))
            && status.contains("VmHWM:")
        {
            enqueue_mb = memory_mb(&status, "VmHWM");
        }
        if let Some(status) = enqueue.try_wait().unwrap() {
            break status;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert!(status.success(), "`reprovisiond enqueue` failed, see above");
    let seconds = started.elapsed().as_secs_f64();

    let mut client = database.connect().await;
    client.tidy().await;
    let daemon = Daemon::start(&config);
    while results(&mut client).await < DONE {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Queued { seconds, enqueue_mb, run_mb: daemon.memory_mb("VmHWM") }
}

async fn results(client: &mut Client) -> i64 {
    client.number("SELECT coalesce(max(id), 0) FROM device_results").await
}
