//! A look at the queue, and the turns it leads to: in each, answers are recorded and the next calls claimed in one commit.
//!
//! Answers come in while a turn is under way, so the busier the database the more of them share the next one.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::call::{Answered, Call};
use super::tasks::{Done, Tasks};
use super::{DatabaseHealth, Engine, Tenant};
use crate::clock::BootInstant;
use crate::domain::id::{CallId, TenantName};
use crate::domain::plan::{Bounds, Entry, Facts, Snapshot, attention, plan, wanted};
use crate::domain::retry::RetryPolicy;
use crate::failpoint;
use crate::graph::Composed;
use crate::store::{Answer, Claim, Claimed, Decision, Intent, Recorded, StoreError};

/// An answer is in the process only until it is recorded: once the database is back it is not left there for long.
const LONGEST_KEPT: Duration = Duration::from_secs(5);

/// How soon a tenant is claimed again that another worker was claiming: about what a claim takes.
const LOCK_AGAIN: Duration = Duration::from_millis(10);

/// What a pass is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// All that waits.
    Queue,
    /// Tenants whose calls have been answered.
    Answers,
    /// What has just come into an empty queue: it is seen when it is claimed, which saves the look before that.
    Unseen,
}

impl Engine {
    /// One pass over `scope`: records what was answered, claims what may go and starts its calls. Returns when to look again if
    /// nothing happens; `None`: nothing waits for a time.
    pub(super) async fn pass(
        &self,
        tasks: &mut Tasks,
        health: &mut DatabaseHealth,
        stop: &CancellationToken,
        scope: Scope,
    ) -> Option<Duration> {
        self.metrics.looks();
        failpoint::reach("before-pass");
        let settings = self.settings.get();
        let told = tasks.told();
        match self.try_pass(tasks, health, stop, scope).await {
            Ok(look_again_in) => {
                if health.failures > 0 {
                    info!(database = settings.database, failures = health.failures, "the database is back");
                }
                health.failures = 0;
                self.metrics.looked(None);
                (look_again_in < Duration::MAX).then_some(look_again_in)
            }
            Err(problem) => {
                let asked_at = self.surroundings.clock.now();
                for fresh in tasks.answered.iter_mut().filter(|answered| answered.failures == 0) {
                    self.not_taken(fresh, tasks.calls.get(&fresh.recording.call_id), asked_at, &problem);
                }
                // An answer that waits from now on, for the same reason, has said so.
                if health.failures == 0 && tasks.told() <= told {
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
                let longest = if tasks.answered.is_empty() { settings.worker.poll_interval } else { LONGEST_KEPT };
                Some(self.delay(health.failures).min(longest))
            }
        }
    }

    async fn try_pass(
        &self,
        tasks: &mut Tasks,
        health: &mut DatabaseHealth,
        stop: &CancellationToken,
        scope: Scope,
    ) -> Result<Duration, StoreError> {
        self.beat();
        if health.unsure {
            // With those that are answered and not recorded: they have been made.
            let under_way: Vec<CallId> = tasks.calls.keys().copied().collect();
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
        let mut look_again_in = self.record_alone(tasks, health, false).await?;
        let mut soonest = |time: Option<Duration>| look_again_in = look_again_in.min(time.unwrap_or(Duration::MAX));
        let facts = if scope == Scope::Queue { self.look().await? } else { BTreeMap::new() };
        for tenant in &self.tenants {
            let answers = tasks.take_fresh(&tenant.name);
            let bounds = self.bounds(tenant, tasks, answers.len());
            let token = tenant.graph.ready();
            tenant.note_token();
            let (mut call, mut expire) = (!answers.is_empty() || scope == Scope::Unseen, false);
            if let Some(facts) = facts.get(&tenant.name) {
                let wants = attention(facts, &bounds);
                soonest(wants.look_again_in);
                if wants.call && !token {
                    self.prepare(tenant, facts, tasks);
                }
                // What was answered may change all that the look has shown.
                (call, expire) = (call || wants.call, wants.expire);
            }
            let claims = !stop.is_cancelled() && (expire || call && token);
            if !claims && answers.is_empty() {
                continue;
            }
            let bounds = if token { bounds } else { Bounds { free_slots: 0, ..bounds } };
            self.beat();
            let intended_at = self.surroundings.clock.now();
            match self.turn(tenant, answers, claims.then_some(&bounds), tasks, health).await? {
                Some(claimed) => {
                    soonest(attention(&claimed.facts_after(), &bounds).look_again_in);
                    soonest(claimed.decision.look_again_in);
                    // There may be more of them than one claim ends.
                    soonest((!claimed.decision.expired.is_empty()).then_some(Duration::ZERO));
                    self.start_calls(tenant, claimed, intended_at, tasks);
                }
                None => soonest(Some(if claims { LOCK_AGAIN } else { Duration::ZERO })),
            }
        }
        Ok(look_again_in)
    }

    /// What there is to do, tenant by tenant.
    async fn look(&self) -> Result<BTreeMap<TenantName, Facts>, StoreError> {
        let asked_at = self.surroundings.clock.now();
        let facts = self.store.facts(&self.names()).await;
        self.asked("facts", asked_at, &facts);
        let facts = facts?;
        self.surroundings.pulse.looked(&facts);
        Ok(facts.into_iter().collect())
    }

    /// Records a tenant's answers and, within `bounds`, claims its next calls. Nothing is claimed where another worker has the
    /// tenant, and nothing is done where the database refuses one of several answers: they go by themselves then.
    async fn turn(
        &self,
        tenant: &Tenant,
        answers: Vec<Answered>,
        bounds: Option<&Bounds>,
        tasks: &mut Tasks,
        health: &mut DatabaseHealth,
    ) -> Result<Option<Claimed>, StoreError> {
        if !answers.is_empty() {
            failpoint::reach("before-record");
        }
        let fetch = |facts: &Facts| bounds.map_or(0, |bounds| wanted(facts, bounds));
        let claim = bounds.map(|_| Claim {
            tenant: &tenant.name,
            worker: self.worker,
            action: tenant.action,
            fetch: &fetch,
            // Nothing that has been answered waits behind another worker.
            waits: tasks.calls.is_empty(),
        });
        let decide =
            |snapshot: Snapshot| bounds.map_or_else(Decision::default, |bounds| decide(tenant, snapshot, bounds));
        if claim.is_some() {
            failpoint::reach("before-intent");
        }
        let given: Vec<Answer<'_>> = answers.iter().map(Answered::given).collect();
        let asked_at = self.surroundings.clock.now();
        let turned = self.store.turn(&given, claim.as_ref().map(|claim| (claim, &decide as _))).await;
        self.asked("turn", asked_at, &turned);
        let problem = match turned {
            Ok(turned) => {
                if !answers.is_empty() {
                    failpoint::reach("after-record");
                }
                for (answered, recorded) in answers.iter().zip(turned.recorded) {
                    tasks.calls.remove(&answered.recording.call_id);
                    log_recorded(tenant, answered, recorded);
                }
                if let Some(claimed) = &turned.claimed {
                    self.note_claim(tenant, claimed);
                }
                return Ok(turned.claimed);
            }
            Err(problem) => problem,
        };
        health.unsure |= claim.is_some();
        let parts = answers.len() + usize::from(claim.is_some());
        let folded = parts > 1 && !matches!(problem, StoreError::Unavailable(_));
        for mut answered in answers {
            if folded {
                answered.failures = answered.failures.saturating_add(1);
            } else {
                self.not_taken(&mut answered, Some(&tenant.name), asked_at, &problem);
            }
            tasks.answered.push(answered);
        }
        if folded {
            debug!(tenant = %tenant.name, error = problem.to_string(), "a turn was refused: its parts go by themselves");
            return Ok(None);
        }
        Err(problem)
    }

    /// Records those answers by themselves that the database has not taken, and the `fresh` ones too if they are to go without a
    /// turn. Returns when the next is to be given again.
    ///
    /// # Errors
    /// The database is not available. What it refuses is logged, kept and given again.
    pub(super) async fn record_alone(
        &self,
        tasks: &mut Tasks,
        health: &mut DatabaseHealth,
        fresh: bool,
    ) -> Result<Duration, StoreError> {
        let now = self.surroundings.clock.now();
        let due = |answered: &Answered| answered.again_at <= now && (fresh || answered.failures > 0);
        while let Some(next) = tasks.answered.iter().position(due) {
            self.beat();
            let answered = tasks.answered.remove(next);
            let of = tasks.calls.get(&answered.recording.call_id);
            let Some(tenant) = self.tenants.iter().find(|tenant| of == Some(&tenant.name)) else { continue };
            let turned = self.turn(tenant, vec![answered], None, tasks, health).await;
            if let Err(problem @ StoreError::Unavailable(_)) = turned {
                return Err(problem);
            }
        }
        let kept = tasks.answered.iter().filter(|answered| answered.failures > 0);
        Ok(kept.map(|answered| answered.again_at.since(now)).min().unwrap_or(Duration::MAX))
    }

    /// The database has not taken an answer: it is kept, and given again.
    fn not_taken(
        &self,
        answered: &mut Answered,
        tenant: Option<&TenantName>,
        asked_at: BootInstant,
        problem: &StoreError,
    ) {
        answered.failures = answered.failures.saturating_add(1);
        answered.again_at = asked_at.plus(self.delay(answered.failures).min(LONGEST_KEPT));
        let (call_id, error) = (answered.recording.call_id, problem.to_string());
        if answered.told {
            debug!(%call_id, error, "the answer of a call still could not be recorded");
        } else {
            answered.told = true;
            error!(
                %call_id,
                tenant = tenant.map(TenantName::as_str),
                error,
                "the answer of a call could not be recorded yet; it is kept and tried again until it is"
            );
        }
    }

    fn note_claim(&self, tenant: &Tenant, claimed: &Claimed) {
        let name = tenant.name.as_str();
        let wake_up = self.metrics.wake_up.with_label_values(&[name]);
        // A later attempt was due when the one before it was.
        for entry in claimed.decision.intents.iter().flat_map(|i| &i.entries).filter(|entry| entry.attempts == 0) {
            wake_up.observe((claimed.facts.now - entry.due_at).to_std().unwrap_or_default().as_secs_f64());
        }
        let (seen, rate) = (&claimed.facts.tenant, tenant.limits().rate);
        let pace = seen.pace.learn(seen.throttled_at, rate);
        self.metrics.rate.with_label_values(&[name]).set(f64::from(pace.at(claimed.facts.now, rate)) / 1000.0);
        if pace != seen.pace && claimed.decision.budget.is_some() {
            info!(
                tenant = %tenant.name,
                rate_percent = pace.thousandths / 10,
                "Graph has refused calls for their rate: it is lowered to this share of limits.calls_per_period, and rises again by 5 percent each limits.period"
            );
        }
        let expired = claimed.decision.expired.len();
        self.metrics.devices.with_label_values(&[name, "expired"]).inc_by(expired as u64);
        if expired > 0 {
            info!(tenant = %tenant.name, requests = expired, "requests expired before they could be sent");
        }
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
            let call = Call {
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
                database_now: claimed.facts.now,
                waits_in_a_row: claimed.facts.waits_in_a_row,
            };
            let task: Pin<Box<dyn Future<Output = Done> + Send>> =
                Box::pin(async move { Done::Call(Box::new(call.run().await)) });
            tasks.set.spawn(task);
            tasks.calls.insert(call_id, tenant.name.clone());
        }
    }
}

/// What commit 1 is to write.
fn decide(tenant: &Tenant, snapshot: Snapshot, bounds: &Bounds) -> Decision {
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
        budget: plan.budget,
        look_again_in: plan.look_again_in,
    }
}

fn log_recorded(tenant: &Tenant, answered: &Answered, recorded: Recorded) {
    let (call_id, tenant) = (answered.recording.call_id, &tenant.name);
    match recorded {
        Recorded::TooLateFor(devices) => error!(
            %call_id,
            %tenant,
            devices,
            "the answer came after its call was given up and these devices' doubt was settled: it is kept on the call, and with their results whether it agrees"
        ),
        // After a failure this may be our own COMMIT, whose answer was lost.
        Recorded::Superseded if answered.failures > 0 => info!(%call_id, "the call was completed already"),
        Recorded::Superseded => error!(
            %call_id,
            %tenant,
            "the call was completed already by another worker; its answer is in this log only"
        ),
        Recorded::Done => {}
    }
    if answered.told {
        info!(%call_id, failures = answered.failures, "the answer is recorded");
    }
}
