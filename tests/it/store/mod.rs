//! What the store promises, on both databases, with the databases' own clients as producers and as the eyes.

mod claim;
mod completions;
mod doubts;
mod grants;
mod intake;
mod orders;
mod plans;
mod prepared;
mod races;
mod record;
mod scale;
mod schema;
mod tenants;
mod turn;
mod upkeep;
mod views;

use std::sync::Arc;
use std::time::Duration;

use reprovisiond::config::DatabaseUrl;
use reprovisiond::domain::action::Action;
use reprovisiond::domain::id::{CallId, RequestId, TenantName, WorkerId};
use reprovisiond::domain::lifecycle::{Bucket, CallState, EntryEffect, Recording, Source, TenantEffect};
use reprovisiond::domain::plan::{Bounds, Snapshot, plan};
use reprovisiond::domain::rate::Rate;
use reprovisiond::store::{self, Claimed, Decision, Evidence, Intent, Recorded, Store, StoreError, WorkerIdentity};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, SqliteConnection};

use crate::support::{Backend, Scratch};

const HOUR: Duration = Duration::from_hours(1);

/// A migrated database with the tenant `default` and one worker, and a store on it.
struct Db {
    store: Arc<dyn Store>,
    worker: WorkerId,
    // Last, so that it outlives the store's connections.
    scratch: Scratch,
}

impl Db {
    async fn new(scratch: Scratch) -> Self {
        let store = open(&scratch).await.unwrap();
        store.migrate().await.unwrap();
        store.register_tenants(&[tenant()]).await.unwrap();
        let db = Self { store, worker: WorkerId::fresh(), scratch };
        db.start_worker(db.worker).await;
        db
    }

    /// What the database's own client prints.
    async fn sql(&self, sql: &str) -> String {
        self.scratch.sqlite3_or_psql(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"))
    }

    /// What the database's own client complains of.
    async fn refusal(&self, sql: &str) -> String {
        match self.scratch.sqlite3_or_psql(sql).await {
            Ok(printed) => panic!("not refused: {sql}: {printed}"),
            Err(sentence) => sentence,
        }
    }

    /// A time so many seconds from now, as an expression.
    fn at(&self, seconds: i64) -> String {
        match self.scratch.backend() {
            Backend::Sqlite => format!("strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '{seconds} seconds')"),
            Backend::Postgres => format!("(now() + interval '{seconds} seconds')"),
        }
    }

    /// Requests for these devices, in this order.
    async fn ask(&self, devices: &[u32]) {
        let rows: Vec<String> = devices.iter().map(|n| format!("('{}')", device(*n))).collect();
        self.sql(&format!("INSERT INTO reprovision_requests (managed_device_id) VALUES {}", rows.join(", "))).await;
    }

    async fn start_worker(&self, id: WorkerId) {
        let worker = WorkerIdentity { id, host: "host".to_owned(), process: "1".to_owned(), version: "0".to_owned() };
        self.store.start_worker(&worker, HOUR).await.unwrap();
    }

    /// Commit 2 of a call, with this effect on each of its entries.
    async fn record(&self, call: CallId, state: CallState, effects: &[(i64, EntryEffect)]) -> Recorded {
        record(&*self.store, call, state, effects, TenantEffect::None).await.unwrap()
    }

    /// The worker stops, and its calls are given up.
    async fn abandon(&self) {
        self.store.stop_worker(self.worker).await.unwrap();
        assert!(!self.store.abandon_calls().await.unwrap().is_empty());
    }

    /// The queue, an entry a line: request, state, attempts, largest call, why it waits.
    async fn queue(&self) -> Vec<String> {
        let sql =
            "SELECT request_id, state, attempts, max_batch, wait_reason FROM reprovision_queue ORDER BY request_id";
        self.sql(sql).await.lines().map(str::to_owned).collect()
    }

    /// The results, a row a line: request, attempt, bucket, source, whether final.
    async fn results(&self) -> Vec<String> {
        let sql = "SELECT request_id, attempt, bucket, source, CASE WHEN final THEN 'final' ELSE 'open' END FROM device_results ORDER BY id";
        self.sql(sql).await.lines().map(str::to_owned).collect()
    }

    /// Every row that the daemon could change.
    async fn everything(&self) -> String {
        self.sql(
            "SELECT * FROM reprovision_queue ORDER BY request_id; SELECT * FROM graph_calls ORDER BY id;
             SELECT * FROM device_results ORDER BY id; SELECT * FROM tenants ORDER BY name;
             SELECT * FROM completions ORDER BY id; SELECT * FROM completion_watches ORDER BY request_id;
             SELECT * FROM completion_tenants ORDER BY tenant;
             SELECT * FROM pauses ORDER BY scope, subject; SELECT * FROM operator_actions ORDER BY id;
             SELECT id, started_at, stopped_at FROM workers ORDER BY id",
        )
        .await
    }

    async fn claim(&self) -> Vec<Intent> {
        claim(&*self.store, self.worker, &bounds(), 1000).await.unwrap().decision.intents
    }
}

/// A connection of a process other than the daemon.
enum Other {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Other {
    async fn connect(scratch: &Scratch) -> Self {
        match scratch.backend() {
            Backend::Sqlite => Self::Sqlite(SqliteConnection::connect(&scratch.url).await.unwrap()),
            Backend::Postgres => Self::Postgres(PgConnection::connect(&scratch.url).await.unwrap()),
        }
    }

    async fn run(&mut self, sql: &str) {
        let sql = AssertSqlSafe(sql.to_owned());
        match self {
            Self::Sqlite(connection) => drop(connection.execute(sql).await.unwrap()),
            Self::Postgres(connection) => drop(connection.execute(sql).await.unwrap()),
        }
    }

    /// Whether this is so by now.
    async fn holds(&mut self, condition: &str) -> bool {
        let sql = AssertSqlSafe(format!("SELECT {condition}"));
        match self {
            Self::Sqlite(connection) => sqlx::query_scalar(sql).fetch_one(connection).await.unwrap(),
            Self::Postgres(connection) => sqlx::query_scalar(sql).fetch_one(connection).await.unwrap(),
        }
    }

    async fn until(&mut self, condition: &str) {
        while !self.holds(condition).await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

async fn record(
    store: &dyn Store,
    call_id: CallId,
    state: CallState,
    effects: &[(i64, EntryEffect)],
    tenant: TenantEffect,
) -> Result<Recorded, StoreError> {
    let entries = effects.iter().map(|(request, effect)| (RequestId(*request), effect.clone())).collect();
    let answered = matches!(state, CallState::Answered | CallState::NotCarriedOut);
    let evidence = Evidence { http_status: answered.then_some(200), ..Evidence::default() };
    let recording = Recording { call_id, state, entries, tenant, leave_alone: None, surplus: Vec::new() };
    crate::support::record(store, &recording, &evidence).await
}

/// Graph's own word, for good.
fn ends(bucket: Bucket) -> EntryEffect {
    EntryEffect::Final { bucket, source: Source::Answer, detail: None }
}

fn in_doubt() -> EntryEffect {
    EntryEffect::Unknown { detail: "reset".to_owned() }
}

fn requeue(max_batch: Option<u32>) -> EntryEffect {
    EntryEffect::Requeue { reason: "not_sent", max_batch }
}

fn try_again(delay: Duration) -> EntryEffect {
    EntryEffect::TryAgain { detail: Some("in failedDeviceIds".to_owned()), delay }
}

/// What the engine does with a claim: the domain's plan, and every call of it gets an id.
async fn claim(store: &dyn Store, worker: WorkerId, bounds: &Bounds, fetch: usize) -> Result<Claimed, StoreError> {
    let decide = |snapshot: Snapshot| {
        let plan = plan(snapshot, bounds, &|_| false);
        let intent =
            |entries| Intent { call_id: CallId::fresh(), entries, digest: "digest".to_owned(), cloud_pcs: None };
        Decision {
            intents: plan.calls.into_iter().map(intent).collect(),
            expired: plan.expired,
            budget: plan.budget,
            look_again_in: plan.look_again_in,
        }
    };
    crate::support::claim(store, &tenant(), worker, fetch, &decide).await
}

fn bounds() -> Bounds {
    let rate = Rate { calls: 1_000_000, period: Duration::from_secs(1) };
    Bounds {
        free_slots: 10,
        max_devices: 100,
        linger: Duration::ZERO,
        open_doubts: 2,
        rate,
        action: Action::BulkReprovisionCloudPc,
    }
}

/// The requests of each call.
fn requests(intents: &[Intent]) -> Vec<Vec<i64>> {
    intents.iter().map(|intent| intent.entries.iter().map(|entry| entry.request_id.0).collect()).collect()
}

/// The n-th device, from 1.
fn device(n: u32) -> String {
    format!("00000000-0000-4000-8000-{n:012x}")
}

fn tenant() -> TenantName {
    "default".parse().unwrap()
}

async fn open(scratch: &Scratch) -> Result<Arc<dyn Store>, StoreError> {
    store::open(&DatabaseUrl::parse(&scratch.url).unwrap(), false, store::PATIENCE).await
}
