//! `reprovisiond bench`: how fast an operator's own database is, and what limits a job. On a scratch database, never on a queue.

mod report;
mod scratch;
mod verdict;
mod work;

use std::io::Write as _;
use std::sync::Arc;

use clap::Args;
use indicatif::ProgressBar;

use self::report::Report;
use self::scratch::Scratch;
use self::verdict::{Configured, verdict};
use self::work::Run;
use super::{Exit, Failure, Global, Output, database, demo};
use crate::config::{self, Config, Sources};
use crate::lifecycle;
use crate::store::{self, Store, StoreError};

/// Measure how fast your database is, and what limits a job
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  reprovisiond bench --config /etc/reprovisiond/reprovisiond.toml
  reprovisiond bench --database sqlite:/var/lib/reprovisiond/queue.db
  reprovisiond bench --database postgres://ops@db/reprovisiond --devices 50000
  reprovisiond bench --output json | jq .limited_by

Runs the daemon's engine against a simulated Graph in this process that answers at once, and says which of four things limits a job:
how often the API may be called, the calls in flight, the database, or the CPU; and what to set, if anything. It uses [batch],
[worker], [limits] and each tenant's action and limits where they are configured, and reads no secret. It takes some ten seconds,
in which it loads the database as a large job would.

No queue is touched. On SQLite it makes a scratch file beside the database (so that it is on the same disk), on Postgres a scratch
schema in it; either is removed at the end, also after an error, Ctrl-C or SIGTERM. Its name begins with reprovisiond_bench_. On
Postgres the role needs CREATE on the database, and the URL must lead to the server itself: a connection pooler does not pass on the
search path by which the schema is kept apart. Daemons that listen on that Postgres look at their queues a few times more.

The simulated Graph takes its share of the CPU time, and history and other load on a real database are not there: a real job is
slower than this by some part.")]
pub(crate) struct BenchArgs {
    /// How many devices are worked on, for 20 seconds at most
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    devices: u32,
}

pub(crate) async fn run(global: &Global, args: &BenchArgs) -> Result<(), Failure> {
    if matches!(global.output, Output::Ndjson | Output::Csv) {
        return Err(Failure::new(Exit::Usage, "bench gives a table or one JSON document: use --output table or json"));
    }
    let sources = Sources::from_process(global.config.clone(), global.database.clone());
    let mistaken = |mistakes| Failure::new(Exit::Configuration, mistakes);
    let url = config::load_database_url(&sources).map_err(mistaken)?;
    let (config, mut tenants) = config::load_bounds(&sources).map_err(mistaken)?;
    if tenants.is_empty() {
        tenants.push((config.graph.action, config.limits.clone()));
    }
    let configured = Configured {
        tenants: tenants.into_iter().map(|(action, limits)| (action, limits.rate)).collect(),
        max_devices: config.batch.max_devices,
        max_calls_in_flight: config.worker.max_calls_in_flight,
    };

    // From here on a signal ends what is measured, and not the tidying up after it; a second one leaves at once.
    let signals = lifecycle::listen(Exit::Failure as u8)
        .map_err(|error| Failure::new(Exit::Failure, format!("signals: {error}")))?;
    let scratch = Scratch::make(url.clone()).await?;
    for left in &scratch.left_behind {
        // Nobody may be reading: it is no reason to stop.
        let _ = writeln!(std::io::stderr(), "another run of bench is under way, or was killed and left {left}");
    }
    let bar = demo::progress(args.devices);
    let ended = match store::open(&scratch.url, false, config.database.patience).await {
        Err(error) => Err(database::at(&url, error)),
        Ok(store) => {
            let ended = tokio::select! {
                biased;
                () = signals.stop.cancelled() => Err(Failure::new(Exit::Failure, "ended by a signal, before it was done")),
                ended = measure(&store, &config, &configured, args.devices, &bar) => ended.map_err(|failure| {
                    Failure::new(failure.exit, format!("{url}: {}", failure.message))
                }),
            };
            store.close().await;
            ended
        }
    };
    bar.finish_and_clear();
    let run = match (ended, scratch.remove().await) {
        (Ok(run), Ok(())) => run,
        (Err(failure), Ok(())) | (Ok(_), Err(failure)) => return Err(failure),
        (Err(failure), Err(left)) => {
            return Err(Failure::new(failure.exit, format!("{}\n{}", failure.message, left.message)));
        }
    };
    let verdict = verdict(&configured, &run.measured);
    let report = Report {
        database: &url,
        not_durable: scratch.not_durable.as_deref(),
        configured: &configured,
        run: &run,
        verdict: &verdict,
    };
    super::print(&if global.output == Output::Json { report.json()? } else { report.text() })
}

/// Measures on the scratch database, once it is certain that it is one.
async fn measure(
    store: &Arc<dyn Store>,
    config: &Config,
    configured: &Configured,
    devices: u32,
    bar: &ProgressBar,
) -> Result<Run, Failure> {
    // The store's own connections lead where nobody ever migrated anything, and so to no queue.
    match store.check_schema().await {
        Err(StoreError::Schema(said)) if said.contains(store::NO_SCHEMA_YET) => {}
        _ => return Err(Failure::new(Exit::Failure, "the scratch database is not empty: nothing was done")),
    }
    store.migrate().await?;
    work::measure(store, config, configured, devices, bar).await
}
