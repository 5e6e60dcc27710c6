//! Yardsticks and peers, each a process of its own: `peers NAME URL N`, with a batch for apalis, and with the seconds that an
//! idle worker is watched for `graphile-service`.
//!
//! Each makes its own tables in an empty database, takes N jobs through, and prints one line of JSON with how long that
//! took and what CPU time this process used meanwhile. Inserting the jobs is not measured.

mod apalis;
mod floor;
mod graphile;
mod ideal_sqlite;

use std::time::{Duration, Instant};

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [name, url, n, rest @ ..] = args.as_slice() else {
        return Err("usage: peers NAME URL N [BATCH or IDLE_SECONDS]".into());
    };
    let n: usize = n.parse()?;
    match (name.as_str(), rest) {
        ("floor", []) => floor::run(url, n, 1).await,
        ("floor-4", []) => floor::run(url, n, 4).await,
        ("rusqlite", []) => ideal_sqlite::run(url, n),
        ("graphile", []) => graphile::drain(url, n).await,
        ("graphile-service", [idle]) => graphile::service(url, n, Duration::from_secs(idle.parse()?)).await,
        ("apalis-postgres", [batch]) => apalis::postgres(url, n, batch.parse()?).await,
        ("apalis-sqlite", [batch]) => apalis::sqlite(url, n, batch.parse()?).await,
        _ => Err(format!("no yardstick {name:?} with {} arguments", args.len()).into()),
    }
}

/// From here to `end`: wall-clock time, and the CPU time of this process.
struct Watch {
    started: Instant,
    cpu: f64,
}

impl Watch {
    fn start() -> Self {
        Self { started: Instant::now(), cpu: cpu_seconds() }
    }

    fn end(self, n: usize) {
        let (seconds, cpu) = (self.started.elapsed().as_secs_f64(), cpu_seconds() - self.cpu);
        println!("{}", serde_json::json!({ "n": n, "seconds": seconds, "cpu_seconds": cpu }));
    }
}

/// User and system time of this process, in nanoseconds' grain.
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
