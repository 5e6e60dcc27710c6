//! The database: what the daemon and its commands ask of it. One trait, two implementations; every verb is exactly one
//! transaction, and no transaction type crosses the trait.

mod completions;
mod condition;
mod error;
mod late;
mod operator;
mod overview;
mod postgres;
mod rows;
mod settled;
mod sqlite;
mod turn;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::sync::Notify;

pub use completions::{ClaimedCompletions, CompletionClaim};
pub use condition::{Condition, PRIVILEGES};
pub use error::{NO_SCHEMA_YET, StoreError};
pub use operator::{Done, Found, Outcome, PauseBefore, Refused};
use overview::DOUBTFUL_ROWS;
pub use overview::{Activity, CallRow, DeviceHistory, Doubtful, HistoryRow, Oldest, Overview, PendingRow};

pub use crate::domain::answer::Evidence;

use crate::config::{DatabaseKind, DatabaseUrl};
use crate::domain::action::Action;
use crate::domain::completion::{CompletionState, Judgement, Watch};
use crate::domain::id::{CallId, CloudPcId, ManagedDeviceId, RequestId, TenantName, WorkerId};
use crate::domain::lifecycle::{Bucket, Recording, Source, TenantEffect};
use crate::domain::operator::Order;
use crate::domain::plan::{Entry, Facts, RateBudget, Snapshot};
use crate::domain::read_back::{Doubt, ReconcilePolicy, Settlement};

/// The queue, the evidence and the results.
#[async_trait]
pub trait Store: Send + Sync {
    /// Creates or updates the schema.
    async fn migrate(&self) -> Result<(), StoreError>;

    /// Refuses a database whose schema is not the one this program was built with.
    async fn check_schema(&self) -> Result<(), StoreError>;

    /// What else a worker needs of the database, thing by thing. Read only.
    async fn examine(&self) -> Result<Vec<Condition>, StoreError>;

    /// Makes tenants known to the database, so that requests for them are accepted. Tenants already there stay as they are.
    async fn register_tenants(&self, names: &[TenantName]) -> Result<(), StoreError>;

    /// Lets blocked tenants be probed at once: somebody restarted the daemon, perhaps after mending the cause.
    async fn probe_blocked(&self, names: &[TenantName]) -> Result<(), StoreError>;

    /// Registers a worker and its first lease.
    async fn start_worker(&self, worker: &WorkerIdentity, lease: Duration) -> Result<(), StoreError>;

    /// Renews a worker's lease. `false`: it had lapsed or was ended, and others may have given up this worker's calls.
    async fn renew_lease(&self, worker: WorkerId, lease: Duration) -> Result<bool, StoreError>;

    /// Ends a worker: calls it leaves in `sending` are in doubt from now on, without waiting for its lease.
    async fn stop_worker(&self, worker: WorkerId) -> Result<(), StoreError>;

    /// The workers of `host` that have not stopped and still have calls in `sending`.
    async fn workers_with_open_calls(&self, host: &str) -> Result<Vec<WorkerIdentity>, StoreError>;

    /// Moves every call in `sending` whose worker has stopped, or has let its lease lapse, to `unknown`, with its
    /// entries: never back to `queued`.
    async fn abandon_calls(&self) -> Result<Vec<AbandonedCall>, StoreError>;

    /// Gives back every call in `sending` of this worker that is not among `under_way`: its intent was committed but the
    /// answer to that commit was lost, so the worker never came to send it. Returns how many.
    async fn release_unsent(&self, worker: WorkerId, under_way: &[CallId]) -> Result<u64, StoreError>;

    /// What there is to do, tenant by tenant. Read only.
    async fn facts(&self, tenants: &[TenantName]) -> Result<Vec<(TenantName, Facts)>, StoreError>;

    /// A turn of the pipeline, as one transaction. First commit 2 of calls that have been answered, all of one tenant: the
    /// evidence, what becomes of each device, and of the tenant. Then, for that tenant, commit 1 of the next calls: under its
    /// lock, shows `decide` a snapshot and commits what it decides, the intents of the calls to make and the entries that end
    /// unsent.
    ///
    /// # Errors
    /// Of any part of it: nothing of the turn was committed then, unless the connection broke during COMMIT itself. What one answer is
    /// refused for, `Conflict` or `Refused`, must not hold up the others: they may be given again one by one.
    async fn turn(
        &self,
        answers: &[Answer<'_>],
        claim: Option<(&Claim<'_>, &Decide<'_>)>,
    ) -> Result<Turned, StoreError>;

    /// Makes a tenant wait although no call was made: its token could not be had.
    async fn defer_tenant(&self, tenant: &TenantName, effect: &TenantEffect) -> Result<(), StoreError>;

    /// Devices in doubt that may be looked at now, oldest call first; and those whose call lies in the future.
    async fn doubts(&self, tenant: &TenantName, policy: &ReconcilePolicy, limit: u32)
    -> Result<Vec<Doubt>, StoreError>;

    /// Settles doubts that are still open, and keeps the evidence of each settlement; returns how many were. What has been settled meanwhile, by a late answer or
    /// another worker, stays as it is.
    async fn settle(&self, settled: &[(Doubt, Settlement)]) -> Result<u64, StoreError>;

    /// From now on what Graph accepts for these tenants is followed, with so much time to the first look; or it is not, and what
    /// is followed ends as untracked. Returns how many that were.
    async fn track_completions(&self, names: &[TenantName], first_after: Option<Duration>) -> Result<u64, StoreError>;

    /// Takes reprovisions that are due to be looked at, as many as the budget of all workers allows, and puts their next look
    /// off. None where the tenant's are not followed.
    async fn claim_completions(&self, claim: &CompletionClaim<'_>) -> Result<ClaimedCompletions, StoreError>;

    /// Records what looks have shown of what is still followed; returns how many ended by it. No look of the tenant before
    /// `leave_alone` is over.
    async fn record_completions(
        &self,
        tenant: &TenantName,
        judged: &[(Watch, Judgement)],
        leave_alone: Option<Duration>,
    ) -> Result<u64, StoreError>;

    /// Carries out a person's order, and records it. A pause holds from its commit on, for every worker.
    async fn order(&self, order: &Order) -> Result<Outcome, StoreError>;

    /// Runs for as long as the connection lives and nudges whenever another process may have inserted requests.
    async fn watch(&self, nudge: Arc<Notify>) -> Result<(), StoreError>;

    /// The database's now.
    async fn now(&self) -> Result<DateTime<Utc>, StoreError>;

    /// Inserts requests, all or none, as any producer would: one transaction, whatever their number.
    async fn enqueue(&self, requests: &[NewRequest]) -> Result<Enqueued, StoreError>;

    /// How much is pending, in all tenants together: one number for each place where it may be.
    async fn depth(&self) -> Result<Depth, StoreError>;

    /// What is pending and what holds, for people.
    async fn status(&self) -> Result<Status, StoreError>;

    /// Result rows after `after`, oldest first, at most `limit`.
    async fn results(
        &self,
        filter: &ResultFilter,
        after: Option<ResultPlace>,
        limit: u32,
    ) -> Result<Vec<ResultRow>, StoreError>;

    /// The place after which the `newest` last result rows come, for `results`. `None`: there are no more than that.
    async fn results_before(&self, filter: &ResultFilter, newest: u32) -> Result<Option<ResultPlace>, StoreError>;

    /// What `status` shows without the totals, whose cost is the history's; and how old what is under way is. For whoever asks
    /// every few seconds.
    async fn overview(&self) -> Result<Overview, StoreError>;

    /// Calls, final results and ended completions of the last `span`, counted by `slot`s back from now.
    async fn activity(&self, span: Duration, slot: Duration) -> Result<Vec<Activity>, StoreError>;

    /// The last calls, newest first.
    async fn last_calls(&self, limit: u32) -> Result<Vec<CallRow>, StoreError>;

    /// What ever happened to a device, the newest `limit` of it in order; and its requests that are pending.
    async fn device_history(&self, device: ManagedDeviceId, limit: u32) -> Result<DeviceHistory, StoreError>;

    /// Closes every connection.
    async fn close(&self);
}

/// `database.patience` of whoever has no configuration.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Opens the database that `url` names. A SQLite file is created only if `create` says so. What the engine asks is given up
/// after `patience`.
pub async fn open(url: &DatabaseUrl, create: bool, patience: Duration) -> Result<Arc<dyn Store>, StoreError> {
    Ok(match url.kind() {
        DatabaseKind::Sqlite { path } => Arc::new(sqlite::SqliteStore::open(&path, create, patience).await?),
        DatabaseKind::Postgres => Arc::new(postgres::PostgresStore::open(url, patience).await?),
    })
}

/// Opens it to look only: nothing is created, and no verb that writes works on a SQLite file.
pub async fn open_to_look(url: &DatabaseUrl, patience: Duration) -> Result<Arc<dyn Store>, StoreError> {
    match url.kind() {
        DatabaseKind::Sqlite { path } => Ok(Arc::new(sqlite::SqliteStore::open_to_look(&path, patience).await?)),
        DatabaseKind::Postgres => open(url, false, patience).await,
    }
}

/// How long one question of whoever looks on may take, at most.
const WATCHING_PATIENCE: Duration = Duration::from_secs(10);

/// Opens it for whoever looks on while a daemon works: one connection of its own, that reads only, and questions that the database ends
/// after 10 s, or after `patience` if that is less. It takes nothing from the daemon's connections, and its trouble is not theirs.
///
/// # Errors
/// It cannot be opened, as with [`open`].
pub async fn open_to_watch(url: &DatabaseUrl, patience: Duration) -> Result<Arc<dyn Store>, StoreError> {
    let patience = patience.min(WATCHING_PATIENCE);
    Ok(match url.kind() {
        DatabaseKind::Sqlite { path } => Arc::new(sqlite::SqliteStore::open_to_look(&path, patience).await?),
        DatabaseKind::Postgres => Arc::new(postgres::PostgresStore::open_to_watch(url, patience).await?),
    })
}

/// Every statement of both implementations, by name, for the test that prepares each on a migrated schema.
pub fn statements(kind: &DatabaseKind) -> &'static [(&'static str, &'static str)] {
    match kind {
        DatabaseKind::Sqlite { .. } => sqlite::sql::ALL,
        DatabaseKind::Postgres => postgres::sql::ALL,
    }
}

/// One daemon process, and how another on the same host can tell whether it still lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerIdentity {
    /// This life.
    pub id: WorkerId,
    /// Host name, boot and process namespace: equal only where process ids mean the same.
    pub host: String,
    /// Process id and start time.
    pub process: String,
    /// The program's version.
    pub version: String,
}

/// A call that was in `sending` when its worker was no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AbandonedCall {
    /// The call.
    pub call_id: CallId,
    /// Its tenant.
    pub tenant: String,
    /// Devices in it.
    pub device_count: u32,
    /// The worker that made it.
    pub worker: WorkerId,
}

/// Whose entries are claimed, by whom and for what.
#[derive(Clone)]
pub struct Claim<'a> {
    /// The tenant.
    pub tenant: &'a TenantName,
    /// The worker that will make the calls.
    pub worker: WorkerId,
    /// What will be called, for `graph_calls.action`.
    pub action: Action,
    /// Due entries in the snapshot, at most: asked while the tenant's lock is held.
    pub fetch: &'a (dyn Fn(&Facts) -> usize + Send + Sync),
    /// Whether to wait for a tenant that another worker is claiming. If not, nothing is claimed then.
    pub waits: bool,
}

/// Decides on a snapshot; pure, and called while the tenant's lock is held.
pub type Decide<'a> = dyn Fn(Snapshot) -> Decision + Send + Sync + 'a;

/// What commit 1 is to write.
#[derive(Debug, Clone, Default)]
pub struct Decision {
    /// The calls to make.
    pub intents: Vec<Intent>,
    /// Entries that end as `expired`.
    pub expired: Vec<Entry>,
    /// The rate budget once these calls have gone.
    pub budget: Option<RateBudget>,
    /// Time until more may go, if nothing else happens.
    pub look_again_in: Option<Duration>,
}

/// A call that is to be made.
#[derive(Debug, Clone)]
pub struct Intent {
    /// The id it will carry as `client-request-id`.
    pub call_id: CallId,
    /// Its entries, in the order of the request body.
    pub entries: Vec<Entry>,
    /// SHA-256 of the request body, in hexadecimal.
    pub digest: String,
    /// The Cloud PC of each entry's device, in order, for an action that takes their IDs; `None` for a device that has none, or
    /// several.
    pub cloud_pcs: Option<Vec<Option<CloudPcId>>>,
}

/// A call's answer, to be recorded.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// What it means.
    pub recording: &'a Recording,
    /// What was seen.
    pub evidence: &'a Evidence,
}

/// What a turn has written.
#[derive(Debug)]
pub struct Turned {
    /// How commit 2 went, answer by answer.
    pub recorded: Vec<Recorded>,
    /// What commit 1 has written, if one was asked for and the tenant was to be had.
    pub claimed: Option<Claimed>,
}

/// What commit 1 has written.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The tenant as the decision saw it.
    pub facts: Facts,
    /// What was decided and is committed.
    pub decision: Decision,
}

impl Claimed {
    /// What would be seen after it, as far as it concerns when to look again: no more was read than may go, so that more may wait.
    pub fn facts_after(&self) -> Facts {
        let mut facts = self.facts.clone();
        if let Some(RateBudget { next_call_at, pace }) = self.decision.budget {
            facts.tenant.next_call_at = Some(next_call_at);
            facts.tenant.pace = pace;
        }
        facts
    }
}

/// How commit 2 went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// As decided.
    Done,
    /// The call had been given up, and for so many of its devices the doubt was settled before this answer came. The
    /// evidence is kept on the call; those devices stay as they were settled, with what the answer says beside it as a
    /// result that is not final; the others go as decided.
    TooLateFor(usize),
    /// The call had already been completed. Nothing was changed.
    Superseded,
}

/// A request as `enqueue` inserts it. Texts as the producer gave them: the database judges them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewRequest {
    /// The device.
    pub managed_device_id: String,
    /// `None`: the database's default.
    pub tenant: Option<String>,
    /// Who asks.
    pub requested_by: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// The producer's own reference.
    pub external_id: Option<String>,
    /// Higher goes first.
    pub priority: i32,
    /// Not before.
    pub not_before: Option<DateTime<Utc>>,
    /// Not after.
    pub expires_at: Option<DateTime<Utc>>,
    /// Past the cooldown.
    pub force: bool,
}

/// What became of an `enqueue`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Enqueued {
    /// Rows inserted.
    pub inserted: u64,
    /// Rows whose `external_id` was there already.
    pub already_there: u64,
}

/// What holds now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The database's now.
    pub now: DateTime<Utc>,
    /// Devices that are paused, whatever their tenant.
    pub paused_devices: i64,
    /// Pending requests that are paused, each by its own number.
    pub paused_requests: i64,
    /// Tenant by tenant, by name.
    pub tenants: Vec<TenantStatus>,
    /// Workers whose lease holds.
    pub workers: Vec<WorkerStatus>,
}

/// How many entries of the queue are where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depth {
    /// They may go now, as far as they themselves go.
    pub ready: i64,
    /// They wait for a time.
    pub waiting: i64,
    /// Their call is under way.
    pub sending: i64,
    /// They are in doubt.
    pub unknown: i64,
    /// They wait for a person.
    pub held: i64,
}

impl From<(i64, i64, i64, i64, i64)> for Depth {
    /// In the order of the statement `DEPTH`.
    fn from((ready, waiting, sending, unknown, held): (i64, i64, i64, i64, i64)) -> Self {
        Self { ready, waiting, sending, unknown, held }
    }
}

/// One tenant, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TenantStatus {
    /// Its name.
    pub tenant: String,
    /// Entries that may go now, as far as they themselves go.
    pub ready: i64,
    /// Entries that wait for a time.
    pub waiting: i64,
    /// Entries whose call is under way.
    pub sending: i64,
    /// Entries in doubt.
    pub unknown: i64,
    /// Entries that wait for a person.
    pub held: i64,
    /// When the oldest ready entry became due.
    pub oldest_ready_at: Option<DateTime<Utc>>,
    /// When the next waiting entry is due.
    pub next_due_at: Option<DateTime<Utc>>,
    /// Calls whose whole outcome is in doubt.
    pub calls_in_doubt: i64,
    /// Since when it is paused.
    pub paused_at: Option<DateTime<Utc>>,
    /// By whom.
    pub paused_by: Option<String>,
    /// The reason given for the pause.
    pub pause_reason: Option<String>,
    /// No call before this.
    pub wait_until: Option<DateTime<Utc>>,
    /// Why it waits.
    pub wait_reason: Option<String>,
    /// Since when it is blocked.
    pub blocked_at: Option<DateTime<Utc>>,
    /// One word for why.
    pub block_code: Option<String>,
    /// Why, and what to do.
    pub block_reason: Option<String>,
    /// When a probe goes.
    pub probe_at: Option<DateTime<Utc>>,
    /// One small call at a time until one is answered.
    pub cautious: bool,
    /// Final results by bucket.
    pub successful: i64,
    /// Final results by bucket.
    pub failed: i64,
    /// Final results by bucket.
    pub not_found: i64,
    /// Final results by bucket.
    pub not_supported: i64,
    /// Final results by bucket.
    pub expired: i64,
    /// Final results by bucket.
    pub cancelled: i64,
    /// Final results by bucket.
    pub suppressed: i64,
    /// Accepted reprovisions that are being followed.
    pub completion_followed: i64,
    /// Followed reprovisions by how they ended.
    pub completion_done: i64,
    /// Followed reprovisions by how they ended.
    pub completion_failed: i64,
    /// Followed reprovisions by how they ended.
    pub completion_canceled: i64,
    /// Followed reprovisions by how they ended.
    pub completion_not_supported: i64,
    /// Followed reprovisions by how they ended.
    pub completion_untracked: i64,
}

/// One living worker, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WorkerStatus {
    /// Its id.
    pub id: WorkerId,
    /// Its host.
    pub host: String,
    /// Its version.
    pub version: String,
    /// When it started.
    pub started_at: DateTime<Utc>,
    /// When it was last heard of.
    pub heartbeat_at: DateTime<Utc>,
}

/// Which result rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResultFilter {
    /// Of this tenant.
    pub tenant: Option<String>,
    /// Of this device.
    pub device: Option<ManagedDeviceId>,
    /// Of this request.
    pub request: Option<RequestId>,
    /// Of this call.
    pub call: Option<CallId>,
    /// In this bucket.
    pub bucket: Option<Bucket>,
    /// Recorded at or after.
    pub since: Option<DateTime<Utc>>,
    /// Recorded before.
    pub until: Option<DateTime<Utc>>,
    /// Every attempt, not only final results.
    pub all_attempts: bool,
}

impl ResultFilter {
    /// The statement that reads the least for this: by time; of a bucket that few are in; or of the few devices that it names, which a request
    /// and a call do too.
    fn narrowest<'a>(&self, by_time: &'a str, of_bucket: &'a str, of_devices: &'a str) -> &'a str {
        if self.device.is_some() || self.request.is_some() || self.call.is_some() {
            of_devices
        } else if self.bucket.is_some_and(|bucket| bucket != Bucket::Successful) {
            of_bucket
        } else {
            by_time
        }
    }
}

/// Where a result stands: they are in the order of time, and those of one time in the order of their ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResultPlace {
    /// `device_results.recorded_at`
    pub recorded_at: DateTime<Utc>,
    /// `device_results.id`
    pub id: i64,
}

/// A row of `device_results`, with the evidence of its call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ResultRow {
    /// `device_results.id`
    pub id: i64,
    /// The request.
    pub request_id: RequestId,
    /// Its tenant.
    pub tenant: String,
    /// Its device.
    pub managed_device_id: String,
    /// The attempt, from 1; 0 if it was never sent.
    pub attempt: i32,
    /// The bucket.
    pub bucket: Bucket,
    /// On whose word.
    pub source: Source,
    /// Whether it ends the request.
    pub r#final: bool,
    /// Why, where the bucket alone does not say.
    pub detail: Option<String>,
    /// Who asked.
    pub requested_by: Option<String>,
    /// Why it was asked.
    pub reason: Option<String>,
    /// When this was recorded.
    pub recorded_at: DateTime<Utc>,
    /// The call: what was sent as `client-request-id`.
    pub call_id: Option<CallId>,
    /// When the intent was committed; the POST left right after.
    pub sent_at: Option<DateTime<Utc>>,
    /// HTTP status of the call.
    pub http_status: Option<i32>,
    /// Graph's `request-id`: with `call_id`, what Microsoft's support asks for.
    pub graph_request_id: Option<String>,
    /// What was read back, as JSON, where the result stands on it.
    pub evidence: Option<String>,
    /// Of a final result that is followed, or was: how far the reprovision has come.
    pub completion: Option<CompletionState>,
    /// When it ended, by Graph's clock.
    pub completed_at: Option<DateTime<Utc>>,
    /// Seconds that it took, by Graph's clock.
    pub took_seconds: Option<i64>,
    /// Graph's status detail of it; of what is not followed any more, why.
    pub completion_detail: Option<String>,
}

impl ResultRow {
    /// What comes after it is what comes after this place.
    pub const fn place(&self) -> ResultPlace {
        ResultPlace { recorded_at: self.recorded_at, id: self.id }
    }

    /// The columns of JSON and CSV, named as in `device_results` and `graph_calls`.
    pub const COLUMNS: &[&str] = &[
        "id",
        "request_id",
        "tenant",
        "managed_device_id",
        "attempt",
        "bucket",
        "source",
        "final",
        "detail",
        "requested_by",
        "reason",
        "recorded_at",
        "call_id",
        "sent_at",
        "http_status",
        "graph_request_id",
        "evidence",
        "completion",
        "completed_at",
        "took_seconds",
        "completion_detail",
    ];
}

impl TenantStatus {
    /// Requests without a final result.
    pub fn pending(&self) -> i64 {
        self.ready + self.waiting + self.sending + self.unknown + self.held
    }
}
