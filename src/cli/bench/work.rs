//! The measurement: the real engine and the real store on the scratch database, with a simulated Graph in this process.

use std::sync::Arc;
use std::time::Duration;

use indicatif::ProgressBar;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::verdict::{Configured, Measured};
use crate::cli::{Exit, Failure, demo};
use crate::clock::{BootInstant, cpu_time};
use crate::config::{self, Config};
use crate::domain::action::Action;
use crate::domain::id::{ManagedDeviceId, TenantName, WorkerId};
use crate::domain::rate::Rate;
use crate::engine::{Engine, Served, Settings, Surroundings};
use crate::graph::{Graph, GraphClient};
use crate::simulator::{self, Behaviour, Shares, Simulator, Throttle};
use crate::store::{NewRequest, Store, StoreError};

/// The scratch database's one tenant.
const TENANT: &str = "bench";

/// How long the devices are worked on at most: a slow database is known for one by then.
const LONGEST: Duration = Duration::from_secs(20);

/// How often the least transaction is tried, and for how long at most.
const COMMITS: usize = 200;
const COMMITTING: Duration = Duration::from_secs(2);

/// Nothing holds calls back.
const UNBOUNDED: Rate = Rate { calls: 1_000_000, period: Duration::from_secs(1) };

/// What was done, and what was seen.
pub(super) struct Run {
    pub(super) devices: u64,
    pub(super) seconds: f64,
    pub(super) measured: Measured,
}

/// Measures a database that has this program's schema and nothing else.
pub(super) async fn measure(
    store: &Arc<dyn Store>,
    config: &Config,
    configured: &Configured,
    devices: u32,
    bar: &ProgressBar,
) -> Result<Run, Failure> {
    let tenant: TenantName = TENANT.parse().map_err(|error| Failure::new(Exit::Failure, error))?;
    store.register_tenants(std::slice::from_ref(&tenant)).await?;
    // The first call gets a token and prepares statements; it is not counted.
    let first = configured.devices_per_call();
    let simulator = simulator(first + devices as usize)?;
    let ids: Vec<ManagedDeviceId> = simulator
        .devices()
        .iter()
        .filter(|device| device.behaviour == Behaviour::Succeeds)
        .map(|device| device.managed_device_id)
        .take(first + devices as usize)
        .collect();
    let worker = WorkerId::fresh();
    let engine = Arc::new(engine(store, config, configured, &simulator, &tenant, worker)?);
    engine.start().await?;
    let commit = median(async || store.renew_lease(worker, config.worker.lease).await.map(drop)).await?;
    let read = median(async || store.now().await.map(drop)).await?;

    let stop = CancellationToken::new();
    let (stopped, seen) = tokio::join!(engine.run_as_task(stop.clone()), async {
        let seen = work(store, &engine, &tenant, &ids, first, bar).await;
        stop.cancel();
        seen
    });
    let (devices, took, cpu) = seen?;
    stopped?;
    simulator.shutdown().await.map_err(|error| Failure::new(Exit::Failure, error))?;
    let seconds = took.as_secs_f64();
    let (devices_per_second, cpu_per_device) = per_device(devices, seconds, cpu);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Ok(Run { devices, seconds, measured: Measured { devices_per_second, commit, read, cpu_per_device, cores } })
}

/// A Graph that answers at once and refuses nothing.
fn simulator(devices: usize) -> Result<Simulator, Failure> {
    let options =
        simulator::Options { devices, shares: Shares::NONE, throttle: Throttle::Off, ..simulator::Options::default() };
    Simulator::start(options).map_err(|error| Failure::new(Exit::Failure, error))
}

fn engine(
    store: &Arc<dyn Store>,
    config: &Config,
    configured: &Configured,
    simulator: &Simulator,
    tenant: &TenantName,
    worker: WorkerId,
) -> Result<Engine, Failure> {
    // What an action does over time is the simulator's invention: this one is over with its answer, and means the same work for the
    // database.
    let served_as = demo::simulated_tenant(simulator, Action::BulkReprovisionCloudPc)?;
    let client = GraphClient::new(&served_as, &config.graph).map_err(|error| Failure::new(Exit::Failure, error))?;
    let limits = config::Limits { rate: UNBOUNDED, ..served_as.limits };
    let served =
        Served { name: tenant.clone(), graph: Arc::new(client) as Arc<dyn Graph>, action: served_as.action, limits };
    let mut settings = Settings::from(config);
    settings.batch.max_devices = configured.devices_per_call();
    settings.batch.linger = Duration::ZERO;
    settings.worker.drain_timeout = Duration::from_secs(5);
    Ok(Engine::new(Arc::clone(store), vec![served], settings, worker, Surroundings::default()))
}

/// The usual time of a transaction, by its median: a shared disk has moments.
async fn median(mut transaction: impl AsyncFnMut() -> Result<(), StoreError>) -> Result<Duration, Failure> {
    let (first, mut times) = (BootInstant::now(), Vec::new());
    while times.len() < COMMITS && first.elapsed() < COMMITTING {
        let began = BootInstant::now();
        transaction().await?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    Ok(times.get(times.len() / 2).copied().unwrap_or_default())
}

/// Devices that ended, the time that took, and the CPU time.
async fn work(
    store: &Arc<dyn Store>,
    engine: &Engine,
    tenant: &TenantName,
    ids: &[ManagedDeviceId],
    first: usize,
    bar: &ProgressBar,
) -> Result<(u64, Duration, Duration), Failure> {
    let request = |id: &ManagedDeviceId| NewRequest {
        managed_device_id: id.to_string(),
        tenant: Some(tenant.to_string()),
        ..NewRequest::default()
    };
    let (warm_up, rest) = ids.split_at(first.min(ids.len()));
    store.enqueue(&warm_up.iter().map(request).collect::<Vec<_>>()).await?;
    let before = until_ended(engine, tenant, warm_up.len() as u64, &ProgressBar::hidden()).await?;
    store.enqueue(&rest.iter().map(request).collect::<Vec<_>>()).await?;
    let (began, used) = (BootInstant::now(), cpu_time());
    let ended = until_ended(engine, tenant, ids.len() as u64, bar).await? - before;
    let (took, cpu) = (began.elapsed(), cpu_time().saturating_sub(used));
    bar.finish_and_clear();
    if ended == 0 {
        let message = format!("not one of {} devices ended within {LONGEST:?}: look at the database", rest.len());
        return Err(Failure::new(Exit::Unavailable, message));
    }
    Ok((ended, took, cpu))
}

/// Waits for so many devices to end, and says how many have: the engine counts them, so that nobody has to ask the database.
async fn until_ended(engine: &Engine, tenant: &TenantName, devices: u64, bar: &ProgressBar) -> Result<u64, Failure> {
    let (metrics, began) = (engine.metrics(), BootInstant::now());
    let counter = metrics.devices.with_label_values(&[tenant.as_str(), "successful"]);
    let mut tick = tokio::time::interval(Duration::from_millis(5));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let before = counter.get();
    loop {
        tick.tick().await;
        let ended = counter.get();
        bar.set_position(ended.saturating_sub(before));
        if let Some(Err(problem)) = metrics.now().look {
            return Err(Failure::new(Exit::Failure, problem));
        }
        if ended >= devices || began.elapsed() > LONGEST {
            return Ok(ended);
        }
    }
}

#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "some thousand devices")]
fn per_device(devices: u64, seconds: f64, cpu: Duration) -> (f64, Duration) {
    (devices as f64 / seconds.max(1e-9), cpu.div_f64(devices as f64))
}
