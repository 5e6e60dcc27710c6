//! graphile_worker: a batch of jobs through an empty handler, as fast as its settings go; and as a service, how soon a job
//! is picked up and what an idle worker costs.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use graphile_worker::{
    IntoTaskHandlerResult, JobSpec, LocalQueueConfig, TaskHandler, Worker, WorkerContext, WorkerOptions,
};
use serde::{Deserialize, Serialize};
use sqlx::postgres::{PgPool, PgPoolOptions};

use crate::{Failure, Watch, cpu_seconds};

static DONE: AtomicUsize = AtomicUsize::new(0);
static PICKED_UP: Mutex<Vec<Instant>> = Mutex::new(Vec::new());

#[derive(Clone, Serialize, Deserialize)]
struct Nothing {
    device: String,
}

impl TaskHandler for Nothing {
    const IDENTIFIER: &'static str = "nothing";

    async fn run(self, _: WorkerContext) -> impl IntoTaskHandlerResult {
        DONE.fetch_add(1, Ordering::Relaxed);
        Ok::<(), String>(())
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct Timed {
    device: String,
}

impl TaskHandler for Timed {
    const IDENTIFIER: &'static str = "timed";

    async fn run(self, _: WorkerContext) -> impl IntoTaskHandlerResult {
        PICKED_UP.lock().expect("no handler panics").push(Instant::now());
        Ok::<(), String>(())
    }
}

async fn pool(url: &str) -> Result<PgPool, Failure> {
    Ok(PgPoolOptions::new().max_connections(20).connect(url).await?)
}

/// The settings that were the fastest of those tried: large local queues, and completions in batches.
async fn tuned(pool: PgPool) -> Result<Worker, Failure> {
    let queues = LocalQueueConfig::builder().size(1000).queue_count(4).build();
    let options = WorkerOptions::default().concurrency(64).pg_pool(pool).define_job::<Nothing>();
    Ok(options.local_queue(queues).complete_job_batch_delay(Duration::from_millis(2)).init().await?)
}

pub async fn drain(url: &str, n: usize) -> Result<(), Failure> {
    let pool = pool(url).await?;
    let worker = tuned(pool.clone()).await?;
    let spec = JobSpec::default();
    for start in (0..n).step_by(10_000) {
        let jobs: Vec<_> =
            (start..n.min(start + 10_000)).map(|i| (Nothing { device: format!("{i:036}") }, &spec)).collect();
        worker.create_utils().add_jobs::<Nothing>(&jobs).await?;
    }
    let watch = Watch::start();
    let ended = async {
        while DONE.load(Ordering::Relaxed) < n || left(&pool).await? > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok::<(), Failure>(())
    };
    tokio::select! {
        ran = worker.run() => return Err(format!("the worker stopped by itself: {ran:?}").into()),
        ended = ended => ended?,
    }
    watch.end(n);
    Ok(())
}

async fn left(pool: &PgPool) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT count(*) FROM graphile_worker._private_jobs").fetch_one(pool).await
}

pub async fn service(url: &str, n: usize, idle: Duration) -> Result<(), Failure> {
    let pool = pool(url).await?;
    let worker = WorkerOptions::default().concurrency(4).pg_pool(pool).define_job::<Timed>().init().await?;
    let utils = worker.create_utils();
    let measure = async {
        let mut waits = Vec::new();
        for i in 0..n + 5 {
            let sent = Instant::now();
            utils.add_job(Timed { device: i.to_string() }, JobSpec::default()).await?;
            let picked_up = loop {
                if let Some(at) = PICKED_UP.lock().expect("no handler panics").get(i) {
                    break *at;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            };
            waits.push((picked_up - sent).as_secs_f64() * 1000.0);
            tokio::time::sleep(Duration::from_millis(50 + (i as u64 * 37) % 61)).await;
        }
        let mut waits = waits.split_off(5);
        waits.sort_by(f64::total_cmp);
        tokio::time::sleep(Duration::from_secs(2)).await;
        let before = cpu_seconds();
        tokio::time::sleep(idle).await;
        let cpu = (cpu_seconds() - before) * 3600.0 / idle.as_secs_f64();
        let (median, p99) = (waits[waits.len() / 2], waits[waits.len() * 99 / 100]);
        let status = std::fs::read_to_string("/proc/self/status")?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        let rss: f64 = rss.trim().trim_end_matches(" kB").parse()?;
        Ok::<_, Failure>(serde_json::json!({
            "median_ms": median, "p99_ms": p99, "cpu_s_per_hour": cpu, "rss_mb": rss / 1024.0,
        }))
    };
    tokio::select! {
        ran = worker.run() => Err(format!("the worker stopped by itself: {ran:?}").into()),
        figures = measure => {
            println!("{}", figures?);
            Ok(())
        }
    }
}
