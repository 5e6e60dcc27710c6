//! apalis on Postgres and on SQLite: jobs through an empty handler, `batch` fetched at once and as many under way.

use std::str::FromStr as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use apalis::prelude::*;
use apalis_postgres::PostgresStorage;
use apalis_sqlite::SqliteStorage;
use futures::stream;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use crate::{Failure, Watch};

static DONE: AtomicUsize = AtomicUsize::new(0);

async fn nothing(_: String) -> Result<(), BoxDynError> {
    DONE.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// Its default of 100 ms between two looks would be all that is measured.
const INTERVAL: Duration = Duration::from_millis(1);

fn jobs(n: usize) -> impl Iterator<Item = String> {
    (0..n).map(|i| format!("{i:036}"))
}

/// Runs the worker until `$left` says that the database knows of every job that it is done.
macro_rules! drain {
    ($backend:expr, $n:expr, $batch:expr, $left:expr) => {{
        let worker = WorkerBuilder::new("bench")
            .backend($backend.poll_with_strategy(Strategy::new().interval(INTERVAL)))
            .concurrency($batch)
            .build(nothing);
        let watch = Watch::start();
        let ended = async {
            while DONE.load(Ordering::Relaxed) < $n || $left.await? > 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Ok::<(), Failure>(())
        };
        tokio::select! {
            ran = worker.run() => return Err(format!("the worker stopped by itself: {ran:?}").into()),
            ended = ended => ended?,
        }
        watch.end($n);
        Ok(())
    }};
}

pub async fn postgres(url: &str, n: usize, batch: usize) -> Result<(), Failure> {
    let pool = sqlx::postgres::PgPoolOptions::new().max_connections(20).connect(url).await?;
    PostgresStorage::setup(&pool).await?;
    let config = apalis_postgres::Config::default().queue("bench").batch_size(batch);
    let mut backend = PostgresStorage::<String>::new(&pool).with_config(config);
    backend.push_all(&mut stream::iter(jobs(n).map(|job| TaskBuilder::new(job).build()))).await?;
    let left =
        || sqlx::query_scalar::<_, i64>("SELECT count(*) FROM apalis.jobs WHERE status <> 'Done'").fetch_one(&pool);
    drain!(backend, n, batch, left())
}

pub async fn sqlite(url: &str, n: usize, batch: usize) -> Result<(), Failure> {
    let options = SqliteConnectOptions::from_str(url)?
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    // Its setup turns durability off on the connection that it is given; so that one is not used again.
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await?;
    SqliteStorage::setup(&pool).await?;
    pool.close().await;
    let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await?;
    let config = apalis_sqlite::Config::default().queue("bench").batch_size(batch);
    let mut backend = SqliteStorage::<String>::new(&pool).with_config(config);
    backend.push_all(&mut stream::iter(jobs(n).map(|job| TaskBuilder::new(job).build()))).await?;
    let left = || sqlx::query_scalar::<_, i64>("SELECT count(*) FROM Jobs WHERE status <> 'Done'").fetch_one(&pool);
    drain!(backend, n, batch, left())
}
