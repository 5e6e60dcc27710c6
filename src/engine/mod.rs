//! The work loop: gather, plan, commit the intent, call, commit the answer. Knows the traits of the store and of Graph,
//! not what is behind them.
//!
//! One task looks at the queue and is the only one that claims and records; each call is a task of its own; one task keeps the
//! lease; one listens for wake-ups; and where `completion.track` is on, one for each tenant follows what was accepted. The end of any of them is noticed.

mod call;
mod completion;
mod intervals;
mod lease;
mod live;
mod prepare;
mod process;
mod pulse;
mod reconcile;
mod tasks;
mod tenant;
mod turn;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::chance::{Chance, Random};
use crate::clock::{BootClock, BootInstant, Clock};
use crate::config::{Batch, Completion, Config, Limits, Reconcile, Retry, Worker};
use crate::domain::action::Action;
use crate::domain::id::{TenantName, WorkerId};
use crate::domain::plan::{Bounds, Facts};
use crate::failpoint;
use crate::graph::Graph;
use crate::metrics::Metrics;
use crate::store::{Store, StoreError};
use lease::Lease;
use live::{Exchange, Live, Waiting};
pub use pulse::{Pulse, Untold};
use tasks::Tasks;
use tenant::Tenant;
use turn::Scope;

/// What the engine is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `[worker]`
    pub worker: Worker,
    /// `[batch]`
    pub batch: Batch,
    /// `[retry]`
    pub retry: Retry,
    /// `[reconcile]`
    pub reconcile: Reconcile,
    /// `[completion]`
    pub completion: Completion,
    /// The database as it may be shown: what is wrong with it is of no use without which it is.
    pub database: String,
}

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        Self {
            worker: config.worker.clone(),
            batch: config.batch.clone(),
            retry: config.retry.clone(),
            reconcile: config.reconcile.clone(),
            completion: config.completion.clone(),
            database: config.database.url.to_string(),
        }
    }
}

/// A tenant that is served: how it is reached, and within which bounds.
pub struct Served {
    /// Its name.
    pub name: TenantName,
    /// How it is reached.
    pub graph: Arc<dyn Graph>,
    /// What is called there.
    pub action: Action,
    /// Its bounds.
    pub limits: Limits,
}

/// Why the engine stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The database could not be used at the start, or not at all.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A task ended by a panic: a defect. Nothing is lost, what it was doing is in doubt after the restart.
    #[error("a task failed: {0}")]
    Task(String),
}

/// How a stop went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// Calls that had no recorded answer when the deadline came; they are `unknown` now.
    pub calls_left: usize,
    /// Why the database could not be told that this worker stops: others find out when its lease lapses.
    pub untold: Option<String>,
}

/// What an engine has from its surroundings, and a test gives it.
#[derive(Clone)]
pub struct Surroundings {
    /// What spans are measured with.
    pub clock: Arc<dyn Clock>,
    /// What jitter is drawn from.
    pub chance: Arc<dyn Chance>,
    /// Who is told that the work loop turns.
    pub pulse: Arc<dyn Pulse>,
}

impl Default for Surroundings {
    /// The machine's.
    fn default() -> Self {
        Self { clock: Arc::new(BootClock), chance: Arc::new(Random), pulse: Arc::new(Untold) }
    }
}
/// How long a stop tries to tell the database, beyond the drain deadline. What it cannot tell, the lease does later.
const FAREWELL: Duration = Duration::from_secs(5);

/// The engine of one process.
pub struct Engine {
    store: Arc<dyn Store>,
    tenants: Vec<Arc<Tenant>>,
    settings: Arc<Live>,
    waiting: Waiting,
    worker: WorkerId,
    lease: Arc<Lease>,
    surroundings: Surroundings,
    metrics: Arc<Metrics>,
}

/// Whether the database was last seen well, so that an outage is logged once and its end once.
#[derive(Default)]
struct DatabaseHealth {
    failures: u32,
    /// A claim failed in a way that leaves open whether its COMMIT arrived.
    unsure: bool,
}

impl Engine {
    /// An engine for the tenants that `graphs` can reach.
    pub fn new(
        store: Arc<dyn Store>,
        served: Vec<Served>,
        settings: Settings,
        worker: WorkerId,
        surroundings: Surroundings,
    ) -> Self {
        let metrics =
            Arc::new(Metrics::new(served.iter().map(|served| (served.name.as_str(), served.action.as_str()))));
        let tenant = |served| Arc::new(Tenant::new(served, Arc::clone(&surroundings.clock), Arc::clone(&metrics)));
        let tenants = served.into_iter().map(tenant).collect();
        let lease =
            Arc::new(Lease::new(worker, settings.worker.lease, Arc::clone(&surroundings.clock), Arc::clone(&metrics)));
        let settings = Arc::new(Live::new(settings));
        Self { store, tenants, settings, waiting: Waiting::default(), worker, lease, surroundings, metrics }
    }

    /// What it counts of its work.
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// Exchanges the settings and the named tenants' bounds between two looks at the queue, and ends once they are in force.
    /// Calls under way keep what they began with. The lease, the tenants and whether completions are tracked stay as they are.
    pub async fn reload(&self, settings: Settings, limits: BTreeMap<TenantName, Limits>) {
        let (done, in_force) = oneshot::channel();
        self.waiting.put(Exchange { settings, limits, done });
        // Dropped unanswered where another exchange came first: that one is in force then.
        let _ = in_force.await;
    }

    fn exchange(&self) {
        let Some(Exchange { settings, limits, done }) = self.waiting.take() else { return };
        for (name, limits) in limits {
            if let Some(tenant) = self.tenants.iter().find(|tenant| tenant.name == name) {
                tenant.bound_by(limits);
            }
        }
        self.settings.set(settings);
        let _ = done.send(());
    }

    /// Registers the worker and gives up calls that dead workers left. Until this has been done nothing may be sent.
    pub async fn start(&self) -> Result<(), EngineError> {
        self.lease.start(&*self.store).await?;
        self.lease.abandon(&*self.store).await?;
        let names = self.names();
        self.store.probe_blocked(&names).await?;
        let settings = self.settings.get();
        let following = &settings.completion;
        let ended = self.store.track_completions(&names, following.track.then_some(following.first_after)).await?;
        if ended > 0 {
            warn!(requests = ended, "completion.track is off: what was still followed is recorded as untracked");
        }
        Ok(())
    }

    /// Runs as a task: it then goes on in the thread that has heard what it waits for. As the process's first future it would be woken
    /// in another one for each answer of the database, which costs as much again as the answer's way.
    pub async fn run_as_task(self: &Arc<Self>, stop: CancellationToken) -> Result<Stopped, EngineError> {
        let engine = Arc::clone(self);
        // Dropped, it ends the task.
        let mut task = JoinSet::new();
        task.spawn(async move { engine.run(stop).await });
        match task.join_next().await {
            Some(Ok(stopped)) => stopped,
            Some(Err(error)) => Err(EngineError::Task(error.to_string())),
            None => unreachable!("one was spawned"),
        }
    }

    /// Works until `stop`, then lets calls in flight end within `worker.drain_timeout`.
    pub async fn run(&self, stop: CancellationToken) -> Result<Stopped, EngineError> {
        let nudge = Arc::new(Notify::new());
        let mut background: JoinSet<()> = JoinSet::new();
        background.spawn(lease::keep(Arc::clone(&self.lease), Arc::clone(&self.store), Arc::clone(&nudge)));
        for tenant in &self.tenants {
            let reconciler = reconcile::Reconciler {
                store: Arc::clone(&self.store),
                tenant: Arc::clone(tenant),
                settings: Arc::clone(&self.settings),
                nudge: Arc::clone(&nudge),
                clock: Arc::clone(&self.surroundings.clock),
                first_seen: reconcile::FirstSeen::default(),
                still_open: None,
            };
            background.spawn(reconciler.run());
        }
        for tenant in self.tenants.iter().filter(|_| self.settings.get().completion.track) {
            let follower = completion::Follower {
                store: Arc::clone(&self.store),
                tenant: Arc::clone(tenant),
                settings: Arc::clone(&self.settings),
                clock: Arc::clone(&self.surroundings.clock),
            };
            background.spawn(follower.run());
        }
        background.spawn(watch(
            Arc::clone(&self.store),
            Arc::clone(&nudge),
            Arc::clone(&self.settings),
            self.surroundings.clone(),
        ));

        // The deadline counts from the order to stop, whatever step of a pass that comes in.
        let stopped_at = Arc::new(OnceLock::new());
        let (note, stopping) = (Arc::clone(&stopped_at), stop.clone());
        background.spawn(async move {
            stopping.cancelled().await;
            note.get_or_init(tokio::time::Instant::now);
            std::future::pending::<()>().await;
        });

        let mut tasks = Tasks::default();
        let mut health = DatabaseHealth::default();
        let (mut nudged, mut look_at, mut idle) = (true, tokio::time::Instant::now(), false);
        while !stop.is_cancelled() {
            self.exchange();
            let due = look_at <= tokio::time::Instant::now();
            let scope = match std::mem::take(&mut nudged) {
                true if idle && !due && self.may_claim_unseen(&tasks) => Scope::Unseen,
                true => Scope::Queue,
                false if due => Scope::Queue,
                false => Scope::Answers,
            };
            let look_again_in = self.pass(&mut tasks, &mut health, &stop, scope).await;
            idle = look_again_in.is_none();
            let longest = self.settings.get().worker.poll_interval;
            let next = tokio::time::Instant::now() + look_again_in.map_or(longest, |wait| wait.min(longest));
            look_at = if scope == Scope::Queue { next } else { look_at.min(next) };
            let until = if tasks.has_fresh() { tokio::time::Instant::now() } else { look_at };
            let asleep = tokio::time::sleep_until(until);
            tokio::pin!(asleep);
            loop {
                self.beat();
                tokio::select! {
                    biased;
                    () = stop.cancelled() => {}
                    Some(finished) = tasks.set.join_next() => {
                        nudged |= tasks.finish(finished)?;
                        while let Some(finished) = tasks.set.try_join_next() {
                            nudged |= tasks.finish(finished)?;
                        }
                    }
                    Some(ended) = background.join_next() => {
                        return Err(EngineError::Task(ended.map_or_else(|e| e.to_string(), |()| "a background task ended".to_owned())));
                    }
                    () = nudge.notified() => nudged = true,
                    () = self.waiting.asked.notified() => nudged = true,
                    () = &mut asleep => {}
                    // Only a sign of life: the database is not asked anything for it.
                    () = self.time_to_beat() => continue,
                }
                break;
            }
        }
        let stopped_at = *stopped_at.get_or_init(tokio::time::Instant::now);
        self.drain(&mut tasks, background, stopped_at + self.settings.get().worker.drain_timeout).await
    }

    /// The lease is kept until the calls in flight have ended, and not after the worker has been ended.
    async fn drain(
        &self,
        tasks: &mut Tasks,
        mut background: JoinSet<()>,
        deadline: tokio::time::Instant,
    ) -> Result<Stopped, EngineError> {
        if !tasks.calls.is_empty() {
            info!(calls = tasks.calls.len(), "stopping: waiting for calls in flight");
        }
        let mut health = DatabaseHealth::default();
        loop {
            self.beat();
            let recorded = self.record_alone(tasks, &mut health, true);
            let Ok(recorded) = tokio::time::timeout_at(deadline, recorded).await else { break };
            if tasks.calls.is_empty() {
                break;
            }
            let again = recorded.unwrap_or_else(|_| self.delay(1));
            tokio::select! {
                biased;
                Some(finished) = tasks.set.join_next() => drop(tasks.finish(finished)?),
                () = tokio::time::sleep_until(deadline) => break,
                () = tokio::time::sleep(again), if !tasks.answered.is_empty() => {}
                () = self.time_to_beat() => {}
            }
        }
        let calls_left = tasks.calls.len();
        tasks.set.shutdown().await;
        background.shutdown().await;
        failpoint::reach("at-shutdown");
        let untold = match tokio::time::timeout(FAREWELL, self.say_farewell(calls_left > 0)).await {
            Ok(told) => told.err().map(|problem| problem.to_string()),
            Err(_) => Some(format!("the database gave no answer within {FAREWELL:?}")),
        };
        Ok(Stopped { calls_left, untold })
    }

    async fn say_farewell(&self, calls_left: bool) -> Result<(), StoreError> {
        self.store.stop_worker(self.worker).await?;
        if calls_left { self.lease.abandon(&*self.store).await } else { Ok(()) }
    }

    fn beat(&self) {
        self.surroundings.pulse.beat();
        self.metrics.beat(self.surroundings.clock.now());
    }

    async fn time_to_beat(&self) {
        match self.surroundings.pulse.within() {
            Some(time) => tokio::time::sleep(time).await,
            None => std::future::pending().await,
        }
    }

    fn names(&self) -> Vec<TenantName> {
        self.tenants.iter().map(|tenant| tenant.name.clone()).collect()
    }

    fn delay(&self, n: u32) -> Duration {
        intervals::delay(&self.settings.get().retry, n, &*self.surroundings.chance)
    }

    /// Whether whatever has come can only be the one tenant's, and may go at once.
    fn may_claim_unseen(&self, tasks: &Tasks) -> bool {
        matches!(&self.tenants[..], [tenant] if tasks.calls.is_empty() && tenant.graph.ready())
    }

    /// With the slots of as many calls as are recorded in the same turn.
    fn bounds(&self, tenant: &Tenant, tasks: &Tasks, recorded: usize) -> Bounds {
        // Each tenant has slots of its own: one whose calls hang takes none of another's.
        let settings = self.settings.get();
        let limits = tenant.limits();
        let taken = tasks.calls_of(&tenant.name).saturating_sub(recorded);
        let free = settings.worker.max_calls_in_flight.saturating_sub(taken);
        Bounds {
            // Whoever is believed dead makes no intent that it would only have to drop.
            free_slots: if self.lease.holds() { free } else { 0 },
            max_devices: settings.batch.max_devices,
            linger: settings.batch.linger,
            open_doubts: limits.open_doubts,
            rate: limits.rate,
            action: tenant.action,
        }
    }

    fn asked<T>(&self, operation: &str, asked_at: BootInstant, answer: &Result<T, StoreError>) {
        self.metrics.asked(operation, self.surroundings.clock.now().since(asked_at), answer);
    }

    /// Gets what a call needs beside the loop, so that one tenant's Entra ID, or Graph, holds up no other tenant.
    fn prepare(&self, tenant: &Arc<Tenant>, facts: &Facts, tasks: &mut Tasks) {
        if tenant.held() || !tasks.preparing.insert(tenant.name.clone()) {
            return;
        }
        let preparation = prepare::Preparation {
            store: Arc::clone(&self.store),
            tenant: Arc::clone(tenant),
            delay: self.delay(facts.waits_in_a_row.saturating_add(1)),
            probe_after: self.settings.get().retry.blocked_probe_interval,
        };
        tasks.set.spawn(preparation.run());
    }
}

/// Whole milliseconds, for logs.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Beyond `database.patience` at its longest for each step of beginning to listen: what has lasted so long did listen, and its
/// end is news.
const SURELY_LISTENED: Duration = Duration::from_mins(20);

/// Listens for wake-ups for as long as the process lives. Without them polling carries on.
async fn watch(store: Arc<dyn Store>, nudge: Arc<Notify>, settings: Arc<Live>, surroundings: Surroundings) {
    let (mut failures, mut told) = (0_u32, false);
    loop {
        let started = surroundings.clock.now();
        let Err(problem) = store.watch(Arc::clone(&nudge)).await else { continue };
        let retry = &settings.get().retry;
        let lasted = surroundings.clock.now().since(started);
        failures = if lasted > retry.longest_delay { 1 } else { failures.saturating_add(1) };
        if !told || lasted > SURELY_LISTENED {
            told = true;
            warn!(error = problem.to_string(), "wake-ups are off until the database answers again; polling carries on");
        }
        let delay = intervals::delay(retry, failures, &*surroundings.chance);
        tokio::time::sleep(delay.max(retry.first_delay / 2)).await;
    }
}
