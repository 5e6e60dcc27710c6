//! The store as one worker sees it: each verb may be slow, fail before it began, or lose the answer to its COMMIT.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use reprovisiond::domain::completion::{Judgement, Watch};
use reprovisiond::domain::id::{CallId, ManagedDeviceId, TenantName, WorkerId};
use reprovisiond::domain::lifecycle::{Recording, TenantEffect};
use reprovisiond::domain::operator::Order;
use reprovisiond::domain::plan::Facts;
use reprovisiond::domain::read_back::{Doubt, ReconcilePolicy, Settlement};
use reprovisiond::store::{
    AbandonedCall, Activity, Answer, CallRow, Claim, Claimed, ClaimedCompletions, CompletionClaim, Condition, Decide,
    Depth, DeviceHistory, Enqueued, NewRequest, Outcome, Overview, Recorded, ResultFilter, ResultPlace, ResultRow,
    Status, Store, StoreError, Turned, WorkerIdentity,
};
use tokio::sync::Notify;

use super::invariants;
use super::world::{Life, State, World};

pub(super) struct ModelStore {
    pub(super) world: Arc<World>,
    pub(super) life: Arc<Life>,
}

struct Fate {
    before: Duration,
    after: Duration,
    fails: bool,
    loses_answer: bool,
}

fn unavailable(why: &str) -> StoreError {
    StoreError::Unavailable(why.to_owned())
}

impl ModelStore {
    fn fate(&self) -> Fate {
        let mut state = self.world.state();
        let latency = |state: &mut State| {
            let slow = state.weather.store_slow;
            if state.chance(slow) {
                let longest = if state.chance(0.05) { Duration::from_secs(40) } else { Duration::from_secs(2) };
                state.time(longest)
            } else {
                Duration::ZERO
            }
        };
        let (before, after) = (latency(&mut state), latency(&mut state));
        let (fails, loses) = (state.weather.store_fails, state.weather.store_loses_answers);
        Fate { before, after, fails: state.chance(fails), loses_answer: state.chance(loses) }
    }

    async fn verb<T>(&self, effect: impl FnOnce(&mut State) -> Result<T, StoreError> + Send) -> Result<T, StoreError> {
        self.life.gate().await;
        let fate = self.fate();
        pass(fate.before).await;
        // What a worker has asked for is done, be it stopped meanwhile; a crash ends this future at any wait.
        let result = {
            let mut state = self.world.state();
            if fate.fails || state.db.time < state.outage_until {
                Err(unavailable("a fault of the simulation, before the COMMIT"))
            } else {
                effect(&mut state)
            }
        };
        pass(fate.after).await;
        self.life.gate().await;
        if fate.loses_answer && result.is_ok() {
            return Err(unavailable("a fault of the simulation: the answer to the COMMIT is lost"));
        }
        result
    }
}

/// The parts of a turn.
impl ModelStore {
    fn record(state: &mut State, recording: &Recording) -> Result<Recorded, StoreError> {
        let recorded = state.db.record(recording);
        let number = state.db.number_of(recording.call_id).unwrap();
        state.note(format_args!("call {number} is recorded {}: {recorded:?}", recording.state));
        if let Err(problem) = &recorded {
            state.breach([format!("commit 2 of call {number} is refused: {problem}")]);
        } else if recorded.as_ref().is_ok_and(|recorded| *recorded != Recorded::Superseded) {
            invariants::wait_recorded(state, number, &recording.tenant);
        }
        recorded
    }

    fn claim(&self, state: &mut State, claim: &Claim<'_>, decide: &Decide<'_>, late: Option<Duration>) -> Claimed {
        let doubts = state.db.open_doubts(claim.tenant);
        let first = state.db.calls.len();
        let claimed = state.db.claim(claim, decide);
        for number in first..state.db.calls.len() {
            let requests: Vec<i64> = state.db.calls[number].entries.iter().map(|(id, _)| *id).collect();
            state.note(format_args!("worker {} intends call {number} of {requests:?}", self.life.number));
            if let Some(late) = late {
                state.db.calls[number].committed += late;
            }
        }
        for entry in &claimed.decision.expired {
            state.note(format_args!("request {} expires", entry.request_id));
        }
        invariants::after_claim(state, &self.world.rules, claim, first, doubts);
        claimed
    }
}

async fn pass(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

#[async_trait]
impl Store for ModelStore {
    async fn probe_blocked(&self, names: &[TenantName]) -> Result<(), StoreError> {
        self.verb(|state| {
            state.db.probe_blocked(names);
            Ok(())
        })
        .await
    }

    async fn start_worker(&self, worker: &WorkerIdentity, lease: Duration) -> Result<(), StoreError> {
        let life = &self.life;
        self.verb(|state| {
            state.db.start_worker(worker.id, life.host, lease);
            state.note(format_args!("worker {} starts on host {}", life.number, life.host));
            Ok(())
        })
        .await
    }

    async fn renew_lease(&self, worker: WorkerId, lease: Duration) -> Result<bool, StoreError> {
        self.verb(|state| Ok(state.db.renew_lease(worker, lease))).await
    }

    async fn stop_worker(&self, worker: WorkerId) -> Result<(), StoreError> {
        self.verb(|state| {
            state.db.stop_worker(worker);
            Ok(())
        })
        .await
    }

    /// Whether a process lives the engine asks the system: dead ones get an id that no process has.
    async fn workers_with_open_calls(&self, host: &str) -> Result<Vec<WorkerIdentity>, StoreError> {
        let identity = |(id, life): &(WorkerId, Arc<Life>)| WorkerIdentity {
            id: *id,
            host: host.to_owned(),
            process: if life.is_dead() { "999999999:1".to_owned() } else { "alive".to_owned() },
            version: String::new(),
        };
        self.verb(|state| {
            let open = |worker: &WorkerId| state.db.sending.iter().any(|n| state.db.calls[*n].worker == *worker);
            let here = state.lives.values().filter(|(id, _)| {
                state.db.workers.get(id).is_some_and(|row| row.host == self.life.host && !row.stopped) && open(id)
            });
            Ok(here.map(identity).collect())
        })
        .await
    }

    async fn abandon_calls(&self) -> Result<Vec<AbandonedCall>, StoreError> {
        self.verb(|state| {
            let abandoned = state.db.abandon_calls();
            for call in &abandoned {
                let number = state.db.number_of(call.call_id).unwrap();
                state.note(format_args!("call {number} is abandoned"));
            }
            invariants::after_commit(state, &self.world.rules);
            Ok(abandoned)
        })
        .await
    }

    async fn release_unsent(&self, worker: WorkerId, under_way: &[CallId]) -> Result<u64, StoreError> {
        // It takes the tenants' locks, which a COMMIT that is under way still holds.
        let undecided = {
            let db = &self.world.state().db;
            let last = db.calls.iter().map(|call| call.committed).max().unwrap_or_default();
            last.saturating_sub(db.time)
        };
        pass(undecided).await;
        self.verb(|state| {
            let released = state.db.release_unsent(worker, under_way);
            if released > 0 {
                state.note(format_args!("worker {} releases {released} call(s)", self.life.number));
            }
            Ok(released)
        })
        .await
    }

    async fn facts(&self, tenants: &[TenantName]) -> Result<Vec<(TenantName, Facts)>, StoreError> {
        self.verb(|state| Ok(tenants.iter().filter_map(|name| Some((name.clone(), state.db.facts(name)?))).collect()))
            .await
    }

    async fn turn(
        &self,
        answers: &[Answer<'_>],
        claim: Option<(&Claim<'_>, &Decide<'_>)>,
    ) -> Result<Turned, StoreError> {
        // A connection that breaks during COMMIT: the worker hears of it at once, and the COMMIT arrives later, though not
        // later than the server bears with a silent transaction. What has been answered arrives at once here: nothing looks for it.
        let late = claim.and_then(|_| {
            let mut state = self.world.state();
            let loses = state.weather.store_loses_answers;
            (state.chance(loses) && state.chance(0.2)).then(|| state.time(Duration::from_secs(14)))
        });
        let turned = self
            .verb(|state| {
                let mut recorded = Vec::new();
                for answer in answers {
                    recorded.push(Self::record(state, answer.recording)?);
                }
                let claimed = claim.map(|(claim, decide)| self.claim(state, claim, decide, late));
                invariants::after_commit(state, &self.world.rules);
                Ok(Turned { recorded, claimed })
            })
            .await?;
        if late.is_some() {
            return Err(unavailable("a fault of the simulation: the COMMIT arrives later"));
        }
        Ok(turned)
    }

    async fn defer_tenant(&self, tenant: &TenantName, effect: &TenantEffect) -> Result<(), StoreError> {
        self.verb(|state| {
            state.db.tenant_effect(tenant, effect);
            Ok(())
        })
        .await
    }

    async fn doubts(
        &self,
        tenant: &TenantName,
        policy: &ReconcilePolicy,
        limit: u32,
    ) -> Result<Vec<Doubt>, StoreError> {
        self.verb(|state| Ok(state.db.doubts(tenant, policy, limit))).await
    }

    async fn settle(&self, settled: &[(Doubt, Settlement)]) -> Result<u64, StoreError> {
        self.verb(|state| {
            let changed = state.db.settle(settled);
            for (doubt, settlement) in settled {
                let number = state.db.number_of(doubt.call_id).unwrap();
                state.note(format_args!("request {} of call {number}: {settlement:?}", doubt.request_id));
            }
            invariants::after_commit(state, &self.world.rules);
            Ok(changed)
        })
        .await
    }

    async fn watch(&self, nudge: Arc<Notify>) -> Result<(), StoreError> {
        loop {
            self.world.inserted.notified().await;
            self.life.gate().await;
            nudge.notify_one();
        }
    }

    async fn now(&self) -> Result<DateTime<Utc>, StoreError> {
        self.verb(|state| Ok(state.db.now)).await
    }

    // The engine asks for none of these.

    async fn migrate(&self) -> Result<(), StoreError> {
        not_asked()
    }
    async fn check_schema(&self) -> Result<(), StoreError> {
        not_asked()
    }
    async fn examine(&self) -> Result<Vec<Condition>, StoreError> {
        not_asked()
    }
    async fn register_tenants(&self, _: &[TenantName]) -> Result<(), StoreError> {
        not_asked()
    }
    // Its settings leave `completion.track` off: what is accepted is not followed, and nothing is.
    async fn track_completions(&self, _: &[TenantName], first_after: Option<Duration>) -> Result<u64, StoreError> {
        assert_eq!(first_after, None);
        Ok(0)
    }
    async fn claim_completions(&self, _: &CompletionClaim<'_>) -> Result<ClaimedCompletions, StoreError> {
        not_asked()
    }
    async fn record_completions(
        &self,
        _: &TenantName,
        _: &[(Watch, Judgement)],
        _: Option<Duration>,
    ) -> Result<u64, StoreError> {
        not_asked()
    }
    async fn order(&self, _: &Order) -> Result<Outcome, StoreError> {
        not_asked()
    }
    async fn enqueue(&self, _: &[NewRequest]) -> Result<Enqueued, StoreError> {
        not_asked()
    }
    async fn depth(&self) -> Result<Depth, StoreError> {
        not_asked()
    }
    async fn status(&self) -> Result<Status, StoreError> {
        not_asked()
    }
    async fn results(&self, _: &ResultFilter, _: Option<ResultPlace>, _: u32) -> Result<Vec<ResultRow>, StoreError> {
        not_asked()
    }
    async fn results_before(&self, _: &ResultFilter, _: u32) -> Result<Option<ResultPlace>, StoreError> {
        not_asked()
    }
    async fn overview(&self) -> Result<Overview, StoreError> {
        not_asked()
    }
    async fn activity(&self, _: Duration, _: Duration) -> Result<Vec<Activity>, StoreError> {
        not_asked()
    }
    async fn last_calls(&self, _: u32) -> Result<Vec<CallRow>, StoreError> {
        not_asked()
    }
    async fn device_history(&self, _: ManagedDeviceId, _: u32) -> Result<DeviceHistory, StoreError> {
        not_asked()
    }
    async fn close(&self) {}
}

fn not_asked<T>() -> Result<T, StoreError> {
    panic!("a verb of the commands, which the engine does not ask for")
}
