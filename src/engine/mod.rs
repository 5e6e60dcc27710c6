//! The work loop: gather, plan, commit the intent, call, commit the answer. Knows the traits of the store and of Graph,
//! not what is behind them.
//!
//! One task looks at the queue and is the only one that claims; each call is a task of its own; one task keeps the lease;
//! one listens for wake-ups; and where `completion.track` is on, one for each tenant follows what was accepted. The end of any of them is noticed.

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

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::chance::{Chance, Random};
use crate::clock::{BootClock, BootInstant, Clock};
use crate::config::{Batch, Completion, Config, Limits, Reconcile, Retry, Worker};
use crate::domain::action::Action;
use crate::domain::id::{CallId, TenantName, WorkerId};
use crate::domain::plan::{Bounds, Entry, Facts, Snapshot, attention, plan};
use crate::domain::retry::RetryPolicy;
use crate::failpoint;
use crate::graph::{Composed, Graph};
use crate::metrics::Metrics;
use crate::store::{Claim, Claimed, Decision, Intent, Store, StoreError};
use lease::Lease;
use live::{Exchange, Live, Waiting};
pub use pulse::{Pulse, Untold};
use tasks::{Done, Tasks};
use tenant::Tenant;

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
        while !stop.is_cancelled() {
            self.exchange();
            let look_again_in = self.pass(&mut tasks, &mut health, &stop).await;
            let asleep = tokio::time::sleep(look_again_in);
            tokio::pin!(asleep);
            loop {
                self.beat();
                tokio::select! {
                    biased;
                    () = stop.cancelled() => {}
                    Some(finished) = tasks.set.join_next_with_id() => {
                        tasks.finish(finished)?;
                        while let Some(finished) = tasks.set.try_join_next_with_id() {
                            tasks.finish(finished)?;
                        }
                    }
                    Some(ended) = background.join_next() => {
                        return Err(EngineError::Task(ended.map_or_else(|e| e.to_string(), |()| "a background task ended".to_owned())));
                    }
                    () = nudge.notified() => {}
                    () = self.waiting.asked.notified() => {}
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
        while !tasks.calls.is_empty() {
            self.beat();
            tokio::select! {
                biased;
                finished = tasks.set.join_next_with_id() => match finished {
                    Some(finished) => tasks.finish(finished)?,
                    None => break,
                },
                () = tokio::time::sleep_until(deadline) => break,
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

    /// One look at the queue: claims what may go and starts its calls. Returns when to look again if nothing happens.
    async fn pass(&self, tasks: &mut Tasks, health: &mut DatabaseHealth, stop: &CancellationToken) -> Duration {
        self.metrics.looks();
        failpoint::reach("before-pass");
        let settings = self.settings.get();
        match self.try_pass(tasks, health, stop).await {
            Ok(look_again_in) => {
                if health.failures > 0 {
                    info!(database = settings.database, failures = health.failures, "the database is back");
                }
                health.failures = 0;
                self.metrics.looked(None);
                look_again_in.min(settings.worker.poll_interval)
            }
            Err(problem) => {
                if health.failures == 0 {
                    error!(
                        database = settings.database,
                        error = problem.to_string(),
                        "the queue cannot be read or claimed from; trying again until it can"
                    );
                } else {
                    debug!(error = problem.to_string(), "the queue still cannot be read");
                }
                health.failures = health.failures.saturating_add(1);
                self.metrics.looked(Some(problem.to_string()));
                self.delay(health.failures).min(settings.worker.poll_interval)
            }
        }
    }

    async fn try_pass(
        &self,
        tasks: &mut Tasks,
        health: &mut DatabaseHealth,
        stop: &CancellationToken,
    ) -> Result<Duration, StoreError> {
        self.beat();
        if health.unsure {
            let under_way: Vec<CallId> = tasks.calls.values().map(|(call, _)| *call).collect();
            let released = self.store.release_unsent(self.worker, &under_way).await?;
            health.unsure = false;
            self.beat();
            if released > 0 {
                warn!(
                    calls = released,
                    "the answer to a commit had been lost: calls that were never made are queued again"
                );
            }
        }
        let mut look_again_in = Duration::MAX;
        let mut soonest = |time: Option<Duration>| look_again_in = look_again_in.min(time.unwrap_or(Duration::MAX));
        let asked_at = self.surroundings.clock.now();
        let facts = self.store.facts(&self.names()).await;
        self.asked("facts", asked_at, &facts);
        let facts = facts?;
        self.surroundings.pulse.looked(&facts);
        for (name, facts) in facts {
            if stop.is_cancelled() {
                break;
            }
            let Some(tenant) = self.tenants.iter().find(|tenant| tenant.name == name) else { continue };
            let bounds = self.bounds(tenant, tasks);
            let wants = attention(&facts, &bounds);
            soonest(wants.look_again_in);
            let token = tenant.graph.ready();
            tenant.note_token();
            if wants.call && !token {
                self.prepare(tenant, &facts, tasks);
            }
            if wants.expire || (wants.call && token) {
                let bounds = if token { bounds } else { Bounds { free_slots: 0, ..bounds } };
                self.beat();
                let intended_at = self.surroundings.clock.now();
                let claimed = self.claim(tenant, &bounds, health).await?;
                soonest(claimed.decision.look_again_in);
                // There may be more of them than one claim ends.
                soonest((!claimed.decision.expired.is_empty()).then_some(Duration::ZERO));
                self.start_calls(tenant, claimed, intended_at, tasks);
            }
        }
        Ok(look_again_in)
    }

    fn delay(&self, n: u32) -> Duration {
        intervals::delay(&self.settings.get().retry, n, &*self.surroundings.chance)
    }

    fn bounds(&self, tenant: &Tenant, tasks: &Tasks) -> Bounds {
        // Each tenant has slots of its own: one whose calls hang takes none of another's.
        let settings = self.settings.get();
        let limits = tenant.limits();
        let free = settings.worker.max_calls_in_flight.saturating_sub(tasks.calls_of(&tenant.name));
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

    async fn claim(
        &self,
        tenant: &Tenant,
        bounds: &Bounds,
        health: &mut DatabaseHealth,
    ) -> Result<Claimed, StoreError> {
        let decide = |snapshot: Snapshot| {
            let plan = plan(snapshot, bounds, &|device| !tenant.graph.has_target(device));
            let intent = |entries: Vec<Entry>| {
                let devices: Vec<_> = entries.iter().map(|entry| entry.device).collect();
                let call_id = CallId::fresh();
                let Composed { digest, cloud_pcs } = tenant.graph.compose(call_id, &devices);
                Intent { call_id, entries, digest, cloud_pcs }
            };
            Decision {
                intents: plan.calls.into_iter().map(intent).collect(),
                expired: plan.expired,
                next_call_at: plan.next_call_at,
                look_again_in: plan.look_again_in,
            }
        };
        let claim = Claim {
            tenant: &tenant.name,
            worker: self.worker,
            action: tenant.action,
            fetch: bounds.free_slots * bounds.max_devices,
        };
        failpoint::reach("before-intent");
        let asked_at = self.surroundings.clock.now();
        let claimed = self.store.claim(&claim, &decide).await;
        health.unsure |= claimed.is_err();
        self.asked("claim", asked_at, &claimed);
        let claimed = claimed?;
        self.note_claim(tenant, &claimed);
        if !claimed.decision.expired.is_empty() {
            info!(tenant = %tenant.name, requests = claimed.decision.expired.len(), "requests expired before they could be sent");
        }
        Ok(claimed)
    }

    fn asked<T>(&self, operation: &str, asked_at: BootInstant, answer: &Result<T, StoreError>) {
        self.metrics.asked(operation, self.surroundings.clock.now().since(asked_at), answer);
    }

    fn note_claim(&self, tenant: &Tenant, claimed: &Claimed) {
        let name = tenant.name.as_str();
        let wake_up = self.metrics.wake_up.with_label_values(&[name]);
        // A later attempt was due when the one before it was.
        for entry in claimed.decision.intents.iter().flat_map(|i| &i.entries).filter(|entry| entry.attempts == 0) {
            wake_up.observe((claimed.now - entry.due_at).to_std().unwrap_or_default().as_secs_f64());
        }
        let expired = self.metrics.devices.with_label_values(&[name, "expired"]);
        expired.inc_by(claimed.decision.expired.len() as u64);
    }

    fn start_calls(&self, tenant: &Arc<Tenant>, claimed: Claimed, intended_at: BootInstant, tasks: &mut Tasks) {
        let settings = self.settings.get();
        let policy = RetryPolicy {
            max_attempts: settings.retry.max_attempts,
            retry_failed: settings.retry.failed,
            blocked_probe_interval: settings.retry.blocked_probe_interval,
        };
        for intent in claimed.decision.intents {
            let call_id = intent.call_id;
            let call = call::Call {
                store: Arc::clone(&self.store),
                tenant: Arc::clone(tenant),
                lease: Arc::clone(&self.lease),
                retry: settings.retry.clone(),
                policy: policy.clone(),
                send_within: settings.worker.send_within,
                intent,
                intended_at,
                committed_at: self.surroundings.clock.now(),
                clock: Arc::clone(&self.surroundings.clock),
                chance: Arc::clone(&self.surroundings.chance),
                database_now: claimed.now,
                waits_in_a_row: claimed.waits_in_a_row,
            };
            let task: Pin<Box<dyn Future<Output = Done> + Send>> = Box::pin(async move {
                call.run().await;
                Done::Call
            });
            let handle = tasks.set.spawn(task);
            tasks.calls.insert(handle.id(), (call_id, tenant.name.clone()));
        }
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
