//! What a statement costs depends on what it is about, not on how much is waiting nor on how much has been: counted in rows
//! and pages that are read, at a size that the suite can afford and, where it is asked for, at a million and ten million.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reprovisiond::config::DatabaseUrl;
use reprovisiond::domain::lifecycle::{Bucket, CallState, EntryEffect};
use reprovisiond::store::statements;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, Executor as _, PgConnection, Row as _, SqliteConnection};

use super::{Backend, Db, device, ends, in_doubt, tenant};
use crate::support::{Scratch, on_both};
use client::Client;

#[path = "../../../benches/support/client.rs"]
mod client;
#[path = "../../../benches/support/history.rs"]
mod history;

on_both! {
    async fn every_statement_reads_only_what_it_is_about(scratch: Scratch) {
        check(Db::new(scratch).await, 100_000, 20_000).await;
    }

    #[ignore = "fills a database with ten million requests: some minutes, and some 10 GB of the disk"]
    async fn every_statement_reads_only_what_it_is_about_with_a_million_waiting_and_ten_million_in_history(scratch: Scratch) {
        check(Db::new(scratch).await, 10_000_000, 1_000_000).await;
    }
}

/// A parameter: a value or a list; or rows, which are one JSON array on SQLite and an array a column on Postgres.
enum Given {
    One(Value),
    Rows(Vec<Vec<Value>>),
}

/// A statement with its parameters.
struct Asked {
    name: String,
    sql: String,
    given: Vec<Given>,
    /// The rows that it is given, changes or returns; `None`: it only prepares what comes after it.
    about: Option<usize>,
}

/// What is asked in one transaction, which is then undone.
struct Transaction {
    /// Whether the daemon begins it for a verb (`BEGIN` in `store::postgres::connections`).
    verb: bool,
    asked: Vec<Asked>,
}

/// What a statement took: rows and pages that it read; on SQLite the steps of its program, in hundreds.
struct Work {
    rows: usize,
    pages: usize,
    plan: String,
}

impl Work {
    /// Some rows a row, whatever the size of the tables: a look-up or two with its foreign keys, and their pages from the root down.
    fn is_modest(&self, backend: Backend, about: usize) -> bool {
        match backend {
            Backend::Postgres => self.rows <= 20 + 8 * about && self.pages <= 150 + 30 * about,
            Backend::Sqlite => self.rows <= 50 + 6 * about,
        }
    }
}

async fn check(db: Db, history: usize, waiting: usize) {
    let years = Years::fill(&db, history, waiting).await;
    let backend = db.scratch.backend();
    let (mut table, mut bad) = (String::new(), String::new());
    for mode in modes(backend) {
        years.prepare(mode).await;
        for transaction in years.transactions() {
            for (asked, work) in transaction.asked.iter().zip(years.work(mode, &transaction).await) {
                let (Some(about), Some(work)) = (asked.about, work) else { continue };
                let line = format!("{:>8} {:>8} {:>8}  {mode:<12} {}", about, work.rows, work.pages, asked.name);
                writeln!(table, "{line}").unwrap();
                if !work.is_modest(backend, about) {
                    writeln!(bad, "{line}\n{}", work.plan).unwrap();
                }
            }
        }
    }
    println!("   about     rows    pages\n{table}");
    assert!(bad.is_empty(), "about, rows, pages:\n{bad}");
}

/// How a statement may come to be planned: on Postgres for its parameters or for any; on SQLite always for any, with or
/// without knowing how much there is.
fn modes(backend: Backend) -> [&'static str; 2] {
    match backend {
        Backend::Postgres => ["custom", "generic"],
        Backend::Sqlite => ["unanalysed", "analysed"],
    }
}

/// A database with years behind it, and some calls under way.
struct Years<'a> {
    db: &'a Db,
    statements: &'static [(&'static str, &'static str)],
    history: i64,
    last: i64,
    sending: Called,
    doubtful: Called,
    followed: Called,
    /// A device of the history, and its call.
    device: String,
    call: String,
}

/// A call and its requests.
struct Called {
    id: String,
    requests: Vec<i64>,
}

/// Devices a call.
const BATCH: usize = 100;

impl<'a> Years<'a> {
    async fn fill(db: &'a Db, history: usize, waiting: usize) -> Self {
        let mut client = match db.scratch.backend() {
            Backend::Sqlite => Client::Sqlite(SqliteConnection::connect(&db.scratch.url).await.unwrap()),
            Backend::Postgres => Client::Postgres(PgConnection::connect(&db.scratch.url).await.unwrap()),
        };
        let (begin, end, none) = match client {
            Client::Postgres(_) => {
                ("SET maintenance_work_mem = '512MB'; SET jit = off", "SET session_replication_role = replica", "'{}'")
            }
            Client::Sqlite(_) => {
                ("PRAGMA cache_size = -500000; PRAGMA synchronous = OFF", "PRAGMA foreign_keys = OFF", "'[]'")
            }
        };
        client.execute(begin).await;
        // Built at the end: a page is read for each row that comes in no order.
        let indexes = indexes(&mut client).await;
        for (drop, _) in &indexes {
            client.execute(drop).await;
        }
        client.fill(history, waiting).await;
        client.execute(end).await;
        client
            .execute(&format!(
                "INSERT INTO completions (request_id, call_id, tenant, managed_device_id, state, looks, started_at, evidence, recorded_at)
                 SELECT request_id, call_id, tenant, managed_device_id, 'done', 1, recorded_at, {none}, recorded_at
                 FROM device_results WHERE id <= {}",
                history / 10
            ))
            .await;
        for (_, create) in &indexes {
            client.execute(create).await;
        }
        Self::work_under_way(db, history, waiting).await
    }

    async fn work_under_way(db: &'a Db, history: usize, waiting: usize) -> Self {
        db.store.track_completions(&[tenant()], Some(Duration::ZERO)).await.unwrap();
        let mut called: Vec<Called> = Vec::new();
        for (n, intent) in db.claim().await.into_iter().enumerate() {
            let requests: Vec<i64> = intent.entries.iter().map(|entry| entry.request_id.0).collect();
            assert_eq!(requests.len(), BATCH);
            let all =
                |effect: EntryEffect| requests.iter().map(|request| (*request, effect.clone())).collect::<Vec<_>>();
            let id = intent.call_id;
            match n {
                0 => drop(db.record(id, CallState::Unknown, &all(in_doubt())).await),
                1 => drop(db.record(id, CallState::Answered, &all(ends(Bucket::Successful))).await),
                2 => drop(db.record(id, CallState::Answered, &all(ends(Bucket::Failed))).await),
                _ => {}
            }
            called.push(Called { id: id.to_string(), requests });
        }
        assert_eq!(called.len(), 10);
        let [history, last] = [history, history + waiting].map(|n| i64::try_from(n).unwrap());
        let no = if db.scratch.backend() == Backend::Postgres { "false" } else { "0" };
        db.sql(&format!(
            "UPDATE reprovision_queue SET ready = {no}, due_at = {minute}, wait_reason = 'not_before' WHERE request_id > {due};
             UPDATE reprovision_queue SET expires_at = {minute} WHERE request_id > {expiring} AND request_id <= {due};
             INSERT INTO reprovision_requests (managed_device_id, external_id) VALUES ('{device}', 'ticket-1')",
            minute = db.at(-60),
            due = last - 2000,
            expiring = last - 4000,
            device = device(1)
        ))
        .await;
        let of_middle = format!("SELECT managed_device_id, call_id FROM device_results WHERE id = {}", history / 2);
        let of_middle = db.sql(&of_middle).await;
        let (device, call) = of_middle.split_once('|').unwrap();
        let [doubtful, followed, _, sending, ..] = <[Called; 10]>::try_from(called).ok().unwrap();
        let statements = statements(&DatabaseUrl::parse(&db.scratch.url).unwrap().kind());
        Self {
            db,
            statements,
            history,
            last,
            sending,
            doubtful,
            followed,
            device: device.to_owned(),
            call: call.to_owned(),
        }
    }

    async fn prepare(&self, mode: &str) {
        match mode {
            "custom" => drop(self.db.sql("ANALYZE").await),
            "analysed" => drop(self.db.sql("PRAGMA analysis_limit = 1000; ANALYZE").await),
            _ => {}
        }
    }

    /// What the daemon's loop asks, then what people and producers ask; each with what it is about.
    #[allow(clippy::too_many_lines, reason = "a table")]
    fn transactions(&self) -> Vec<Transaction> {
        let ids = |called: &Called| Given::One(json!(called.requests));
        let call = |called: &Called| one(&called.id);
        let calls = |called: &Called| Given::One(json!([called.id]));
        let tenant = || one("default");
        let rows = |called: &Called, values: Value| {
            let row = |request: &i64| [json!(request)].into_iter().chain(values.as_array().unwrap().clone()).collect();
            Given::Rows(called.requests.iter().map(row).collect())
        };
        let of = |range: std::ops::Range<i64>| Given::One(json!(range.collect::<Vec<_>>()));
        let (sending, doubtful, followed) = (&self.sending, &self.doubtful, &self.followed);
        let tenants = || Given::One(json!(["default"]));
        let final_row = json!(["successful", "answer", true, null, 1, sending.id]);
        let (new, worker) = (json!("018f0000-0000-7000-8000-000000000001"), || one(self.db.worker.to_string()));
        let go = json!((self.history + 2001..self.history + 2101).collect::<Vec<_>>());
        let to = json!((1..101).map(device).collect::<Vec<_>>());
        let intend = if self.db.scratch.backend() == Backend::Postgres {
            let call =
                [new, json!("default"), json!("bulk-reprovision-cloud-pc"), json!(self.db.worker.to_string()), to, go];
            let rest = [json!("x"), Value::Null, json!(now()), json!(1000), Value::Null];
            let of_one = ("FACTS_OF", vec![tenant()], BATCH + 20);
            vec![of_one, ("INTEND", call.into_iter().chain(rest).map(Given::One).collect(), BATCH)]
        } else {
            let goes = go.as_array().unwrap().iter().map(|request| vec![request.clone(), new.clone()]).collect();
            let calls = Given::One(json!([[new, to, go, "x", null]]));
            vec![
                ("INSERT_INTENTS", vec![tenant(), one("bulk-reprovision-cloud-pc"), worker(), calls], 1),
                ("CHARGE_RATE", vec![tenant(), one(now()), one(1000), Given::One(Value::Null)], 1),
                ("START_SENDING", vec![Given::Rows(goes)], BATCH),
            ]
        };
        let answer =
            json!([sending.id, "answered", 200, "x", null, null, null, "{}", null]).as_array().unwrap().clone();
        let dead = if self.db.scratch.backend() == Backend::Postgres { "now()" } else { "'2026-01-01'" };
        let dead = format!("UPDATE workers SET stopped_at = {dead}");
        let mut all = vec![
            self.verb(vec![("FACTS", vec![tenants()], BATCH + 20)]),
            self.verb(vec![("PROMOTE_DUE", vec![tenant(), one(1000)], 1000)]),
            self.verb(vec![("DUE", vec![tenant(), one(1000)], 1000)]),
            self.verb(vec![("OVERDUE", vec![tenant(), one(1000), one(now())], 1000)]),
            self.verb(intend),
            self.verb(vec![
                ("EXPIRE_RESULTS", vec![of(self.last - 2100..self.last - 2000)], BATCH),
                ("LEAVE_QUEUE", vec![of(self.last - 2100..self.last - 2000)], BATCH),
            ]),
            self.verb(vec![
                ("COMPLETE_CALLS", vec![Given::Rows(vec![answer]), one("sending")], 1),
                ("RECORD_RESULTS", vec![rows(sending, final_row)], BATCH),
                ("LEAVE_QUEUE", vec![ids(sending)], BATCH),
            ]),
            self.verb(vec![
                ("RECORD_RESULTS", vec![rows(sending, json!(["failed", "answer", false, "x", 1, sending.id]))], BATCH),
                ("KEEP_IN_QUEUE", vec![rows(sending, json!(["queued", 1000, "x", 1, null, sending.id]))], BATCH),
            ]),
            self.verb(vec![
                ("OPEN_ENTRIES", vec![call(doubtful)], BATCH),
                ("SETTLED_BEFORE", vec![call(doubtful), Given::One(json!([0]))], BATCH),
            ]),
            self.verb(vec![
                ("WORKERS_WITH_OPEN_CALLS", vec![one("host")], 7),
                (&dead, vec![], 0),
                ("ABANDON_CALLS", vec![], 7),
                ("ABANDON_RESULTS", vec![calls(sending)], BATCH),
                ("ABANDON_ENTRIES", vec![calls(sending)], BATCH),
            ]),
            self.verb(vec![
                ("RELEASE_CALLS", vec![one(self.db.worker.to_string()), calls(doubtful)], 7),
                ("RELEASE_ENTRIES", vec![calls(sending)], BATCH),
            ]),
            self.verb(vec![
                ("DOUBTS", vec![tenant(), one(0), one(1000), one(1000)], BATCH),
                ("SETTLE_RESULTS", vec![self.settled(&json!(["successful", true, null, "{}"]))], BATCH),
                ("LEAVE_QUEUE", vec![ids(doubtful)], BATCH),
            ]),
            self.verb(vec![("SETTLE_ENTRIES", vec![self.settled(&json!(["held", 0, null]))], BATCH)]),
            self.verb(vec![
                ("COMPLETION_BUDGET", vec![tenant()], 2),
                ("DUE_WATCHES", vec![tenant(), one(1000)], BATCH),
                ("NEXT_LOOK", vec![tenant()], 1),
                ("PUT_OFF_WATCHES", vec![ids(followed), one(1000)], BATCH),
                ("LOOK_AGAIN", vec![rows(followed, json!([1000]))], BATCH),
                ("RECORD_COMPLETIONS", vec![rows(followed, json!(["done", now(), now(), 1, null, "{}"]))], BATCH),
                ("LEAVE_WATCHES", vec![ids(followed)], BATCH),
            ]),
            self.verb(vec![
                ("WATCHES_OF_TENANTS", vec![tenants()], BATCH),
                ("UNTRACK_WATCHES", vec![ids(followed), one("x")], BATCH),
            ]),
            self.verb(vec![
                ("KNOWN_DEVICES", vec![Given::One(json!([self.device]))], 1),
                ("KNOWN_REQUESTS", vec![of(1..101)], BATCH),
                (
                    "SCOPE_ENTRIES",
                    vec![one("device"), Given::One(json!([device(1)])), of(0..0), Given::One(json!(["queued"]))],
                    1,
                ),
                ("SCOPE_COUNTS", vec![one("request"), Given::One(json!([])), ids(sending)], BATCH),
                ("RETRY_ENTRIES", vec![ids(doubtful), one("x")], BATCH),
            ]),
        ];
        // What looks on, people, and programs of others.
        let queue = usize::try_from(self.last - self.history).unwrap();
        for (name, given, about) in [
            ("STATUS_QUEUE", vec![], queue),
            ("DEPTH", vec![], queue),
            ("STATUS_FOLLOWED", vec![], BATCH),
            ("OLDEST_CALLS", vec![], 8 * BATCH),
            ("DOUBTFUL", vec![one(50)], BATCH),
            ("ACTIVITY_CALLS", vec![one(86_400), one(1800)], 10),
            ("ACTIVITY_RESULTS", vec![one(86_400), one(1800)], 3 * BATCH),
            ("ACTIVITY_COMPLETIONS", vec![one(86_400), one(1800)], 10),
            ("LAST_CALLS", vec![one(20)], 20),
            ("PENDING_OF_DEVICE", vec![one(device(1)), one(500)], 1),
            ("DEVICE_HISTORY", vec![one(&self.device), one(500)], 3),
        ] {
            all.push(self.reading(name, given, about));
        }
        let found = |name: &'static str, given: [(usize, Value); 2], limit: i64, about| {
            let mut all: Vec<Value> = vec![Value::Null; 10];
            all[2] = json!(false);
            for (n, value) in given {
                all[n - 1] = value;
            }
            let given = all.into_iter().map(Given::One).chain([one(limit)]).collect();
            self.reading(name, given, about)
        };
        let (none, hour) = ((4, Value::Null), 3600);
        let (from, to) = ((9, json!(past(hour))), (10, json!(past(2 * hour))));
        let request = || (6, json!(self.history / 2));
        let of_call = || (7, json!(self.call));
        let of_device = || (5, json!(self.device));
        let late = || (9, json!(past(self.history - 200)));
        all.extend([
            found("RESULTS", [none.clone(), none.clone()], 100, 100),
            found("RESULTS_BEFORE", [none.clone(), none.clone()], 100, 100),
            found("RESULTS", [from.clone(), to.clone()], 5000, 3600),
            found("RESULTS", [from.clone(), none.clone()], 100, 100),
            found("RESULTS", [(1, json!(past(self.history / 2))), (2, json!(self.history / 2))], 1000, 1000),
            found("RESULTS", [late(), none.clone()], 100, 100),
            found("RESULTS_BEFORE", [late(), none.clone()], 5000, 4 * BATCH),
            found("RESULTS_BEFORE", [from, to], 5000, 3600),
            found("RESULTS_OF_BUCKET", [(8, json!("failed")), none.clone()], 5000, BATCH),
            found("RESULTS_OF_BUCKET", [(8, json!("expired")), none.clone()], 5000, 0),
            found("RESULTS_OF_BUCKET", [(8, json!("failed")), late()], 5000, BATCH),
            found("RESULTS_BEFORE_OF_BUCKET", [(8, json!("failed")), none.clone()], 50, 50),
            found("RESULTS_OF_DEVICES", [of_device(), none.clone()], 5000, 1),
            found("RESULTS_OF_DEVICES", [request(), none.clone()], 5000, 1),
            found("RESULTS_OF_DEVICES", [of_call(), none.clone()], 5000, BATCH),
            found("RESULTS_OF_DEVICES", [of_call(), request()], 5000, BATCH),
            found("RESULTS_BEFORE_OF_DEVICES", [of_device(), none.clone()], 100, 1),
            found("RESULTS_BEFORE_OF_DEVICES", [request(), none.clone()], 100, 1),
            found("RESULTS_BEFORE_OF_DEVICES", [of_call(), none], 100, BATCH),
        ]);
        // Hours of the whole history are numbered, one after the other, by bucket_totals and completion_totals.
        let hours = usize::try_from(self.history / hour).unwrap() / 4;
        for (sql, given, about) in [
            ("SELECT * FROM request_status WHERE request_id = $1", vec![one(self.history / 2)], 1),
            ("SELECT * FROM request_status WHERE request_id = $1", vec![one(self.last)], 1),
            ("SELECT * FROM request_status WHERE managed_device_id = $1", vec![one(&self.device)], 1),
            ("SELECT * FROM request_status WHERE managed_device_id = $1", vec![one(device(1))], 1),
            ("SELECT * FROM request_status WHERE tenant = $1 AND external_id = $2", vec![tenant(), one("ticket-1")], 1),
            ("SELECT * FROM device_history WHERE managed_device_id = $1 ORDER BY at, step", vec![one(&self.device)], 3),
            (
                "SELECT * FROM bucket_totals WHERE tenant = $1 AND hour >= $2 AND hour < $3",
                vec![tenant(), one(past(hour)), one(past(2 * hour))],
                3600 + hours,
            ),
            (
                "SELECT * FROM completion_totals WHERE tenant = $1 AND hour >= $2 AND hour < $3",
                vec![tenant(), one(past(hour)), one(past(2 * hour))],
                3600 + hours,
            ),
        ] {
            all.push(self.reading(sql, given, about));
        }
        all
    }

    /// Rows of `SETTLE_RESULTS` and `SETTLE_ENTRIES`: request, call, and these.
    fn settled(&self, values: &Value) -> Given {
        let called = &self.doubtful;
        let row = |request: &i64| {
            [json!(request), json!(called.id)].into_iter().chain(values.as_array().unwrap().clone()).collect()
        };
        Given::Rows(called.requests.iter().map(row).collect())
    }

    fn asked(&self, name: &str, given: Vec<Given>, about: usize) -> Asked {
        let sql = self.statements.iter().find(|(other, _)| *other == name).map_or(name, |(_, sql)| *sql);
        let sql = if self.db.scratch.backend() == Backend::Sqlite { sql.replace('$', "?") } else { sql.to_owned() };
        Asked { name: name.to_owned(), sql, given, about: (!name.starts_with("UPDATE")).then_some(about) }
    }

    fn verb(&self, asked: Vec<(&str, Vec<Given>, usize)>) -> Transaction {
        let asked = asked.into_iter().map(|(name, given, about)| self.asked(name, given, about)).collect();
        Transaction { verb: true, asked }
    }

    fn reading(&self, name: &str, given: Vec<Given>, about: usize) -> Transaction {
        Transaction { verb: false, asked: vec![self.asked(name, given, about)] }
    }

    /// What each took; nothing of it stays.
    async fn work(&self, mode: &str, transaction: &Transaction) -> Vec<Option<Work>> {
        match self.db.scratch.backend() {
            Backend::Postgres => self.work_on_postgres(mode, transaction).await,
            Backend::Sqlite => self.work_on_sqlite(transaction).await,
        }
    }

    async fn work_on_postgres(&self, mode: &str, transaction: &Transaction) -> Vec<Option<Work>> {
        let mut connection = PgConnection::connect(&self.db.scratch.url).await.unwrap();
        let settings = if transaction.verb { "SET LOCAL enable_seqscan = off; SET LOCAL jit = off;" } else { "" };
        let begin = format!("BEGIN; {settings} SET LOCAL plan_cache_mode = force_{mode}_plan");
        connection.execute(AssertSqlSafe(begin)).await.unwrap();
        let mut all = Vec::new();
        for asked in &transaction.asked {
            let Some(_) = asked.about else {
                connection.execute(AssertSqlSafe(asked.sql.clone())).await.unwrap();
                all.push(None);
                continue;
            };
            // Results are planned for what is asked each time, and a command gives its one order.
            let once = asked.name.starts_with("RESULTS") || asked.name.starts_with("SCOPE");
            if mode == "generic" && once {
                all.push(None);
                continue;
            }
            connection.execute(AssertSqlSafe(format!("PREPARE asked AS {}", asked.sql))).await.unwrap();
            let given = asked.given.iter().flat_map(Given::literals).collect::<Vec<_>>().join(", ");
            let given = if given.is_empty() { given } else { format!("({given})") };
            let before = touched(&mut connection).await;
            let explain = format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE asked{given}");
            let plan: Value = sqlx::query_scalar(AssertSqlSafe(explain))
                .fetch_one(&mut connection)
                .await
                .unwrap_or_else(|e| panic!("{}: {e}", asked.name));
            let touched = touched(&mut connection).await - before;
            connection.execute("DEALLOCATE asked").await.unwrap();
            let mut work = Work { rows: 0, pages: pages(&plan[0]["Plan"]), plan: String::new() };
            work.add(&plan[0]["Plan"], 0);
            // What triggers and foreign keys read is in no plan.
            work.rows = work.rows.max(usize::try_from(touched).unwrap());
            all.push(Some(work));
        }
        all
    }

    async fn work_on_sqlite(&self, transaction: &Transaction) -> Vec<Option<Work>> {
        let mut connection = SqliteConnection::connect(&self.db.scratch.url).await.unwrap();
        let steps = Arc::new(AtomicUsize::new(0));
        connection.execute("BEGIN IMMEDIATE").await.unwrap();
        let mut all = Vec::new();
        for asked in &transaction.asked {
            let plan = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {}", asked.sql));
            let plan = sqlx::query(plan).fetch_all(&mut connection).await.unwrap();
            let plan = plan.iter().map(|row| row.get("detail")).collect::<Vec<String>>().join("\n  ");
            let count = Arc::clone(&steps);
            connection.lock_handle().await.unwrap().set_progress_handler(100, move || {
                count.fetch_add(1, Ordering::Relaxed);
                true
            });
            steps.store(0, Ordering::Relaxed);
            let query = sqlx::query(AssertSqlSafe(asked.sql.clone()));
            let query = asked.given.iter().fold(query, |query, given| match given.json() {
                Value::Null => query.bind(None::<String>),
                Value::Bool(yes) => query.bind(yes),
                Value::Number(number) => query.bind(number.as_i64()),
                Value::String(text) => query.bind(text),
                list => query.bind(list.to_string()),
            });
            query.fetch_all(&mut connection).await.unwrap_or_else(|e| panic!("{}: {e}", asked.name));
            connection.lock_handle().await.unwrap().remove_progress_handler();
            let work = Work { rows: steps.load(Ordering::Relaxed), pages: 0, plan };
            all.push(asked.about.map(|_| work));
        }
        connection.execute("ROLLBACK").await.unwrap();
        all
    }
}

fn now() -> String {
    chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

/// When request `n` of the history was recorded.
fn past(n: i64) -> String {
    let at = chrono::Utc::now() - chrono::TimeDelta::days(400) + chrono::TimeDelta::seconds(n);
    at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

fn one(value: impl serde::Serialize) -> Given {
    Given::One(json!(value))
}

impl Given {
    /// As SQLite takes it.
    fn json(&self) -> Value {
        match self {
            Self::One(value) => value.clone(),
            Self::Rows(rows) => json!(rows),
        }
    }

    /// As Postgres takes it: quoted, and of the type that the statement has for it.
    fn literals(&self) -> Vec<String> {
        match self {
            Self::One(value) => vec![literal(value)],
            Self::Rows(rows) => {
                (0..rows[0].len()).map(|n| literal(&rows.iter().map(|row| row[n].clone()).collect())).collect()
            }
        }
    }
}

fn literal(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::String(text) => format!("'{text}'"),
        Value::Array(list) => format!("'{{{}}}'", list.iter().map(Value::to_string).collect::<Vec<_>>().join(",")),
        other => format!("'{other}'"),
    }
}

/// Every index that is no constraint's: what drops it, and what makes it again.
async fn indexes(client: &mut Client) -> Vec<(String, String)> {
    match client {
        Client::Postgres(connection) => sqlx::query_as(
            "SELECT 'DROP INDEX ' || i.indexrelid::regclass, pg_get_indexdef(i.indexrelid) FROM pg_index i
             JOIN pg_class c ON c.oid = i.indrelid AND c.relnamespace = 'public'::regnamespace
             WHERE NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid)",
        )
        .fetch_all(connection)
        .await
        .unwrap(),
        Client::Sqlite(connection) => sqlx::query_as(
            "SELECT 'DROP INDEX ' || name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL",
        )
        .fetch_all(connection)
        .await
        .unwrap(),
    }
}

/// A cached plan stays while tables grow, so none may depend on how large they were.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_reads_little_by_a_plan_that_was_made_when_there_was_nothing() {
    let db = Db::new(Scratch::new(Backend::Postgres).await).await;
    let mut connection = PgConnection::connect(&db.scratch.url).await.unwrap();
    connection
        .execute("SET enable_seqscan = off; SET jit = off; SET plan_cache_mode = force_generic_plan")
        .await
        .unwrap();
    let list = |of: &str| format!("array_fill({of}, ARRAY[10])");
    let ten = "'{1,2,3,4,5,6,7,8,9,10}'";
    let (text, none) = (|of: &str| list(&format!("'{of}'::text")), |of: &str| list(&format!("NULL::{of}")));
    let call = list("gen_random_uuid()");
    let asked = [
        ("FACTS_OF", "'default'".to_owned()),
        ("FACTS", "'{default}'".to_owned()),
        ("DUE", "'default', 10".to_owned()),
        (
            "INTEND",
            format!(
                "gen_random_uuid(), 'default', '', gen_random_uuid(), {}, {ten}, '', NULL, now(), 1000, NULL",
                text("x")
            ),
        ),
        (
            "RECORD_RESULTS",
            format!(
                "{ten}, {}, {}, {}, {}, {}, {call}",
                text("successful"),
                text("answer"),
                list("true"),
                none("text"),
                list("1")
            ),
        ),
        (
            "KEEP_IN_QUEUE",
            format!(
                "{ten}, {}, {}, {}, {}, {}, {call}",
                text("queued"),
                none("bigint"),
                text("x"),
                list("0"),
                none("integer")
            ),
        ),
    ];
    let statements = statements(&DatabaseUrl::parse(&db.scratch.url).unwrap().kind());
    for (name, given) in &asked {
        let (_, sql) = statements.iter().find(|(other, _)| other == name).unwrap();
        let plan = format!("PREPARE {name} AS {sql}; BEGIN; EXECUTE {name}({given}); ROLLBACK");
        sqlx::raw_sql(AssertSqlSafe(plan)).execute(&mut connection).await.unwrap();
    }
    db.ask(&(1..5000).collect::<Vec<_>>()).await;
    for (name, given) in &asked {
        let run = format!("BEGIN; EXECUTE {name}({given})");
        sqlx::raw_sql(AssertSqlSafe(run)).execute(&mut connection).await.unwrap();
        let touched = touched(&mut connection).await;
        connection.execute("ROLLBACK").await.unwrap();
        assert!(touched <= 100, "{name} read {touched} rows for ten");
    }
}

/// Rows that this transaction has fetched so far, those of its triggers and foreign keys too.
async fn touched(connection: &mut PgConnection) -> i64 {
    let touched = "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint FROM pg_stat_xact_user_tables";
    sqlx::query_scalar(touched).fetch_one(connection).await.unwrap()
}

fn pages(plan: &Value) -> usize {
    let of = |name: &str| plan[name].as_u64().map_or(0, |pages| usize::try_from(pages).unwrap());
    of("Shared Hit Blocks") + of("Shared Read Blocks")
}

impl Work {
    /// What this node of a plan, and those below it, have read of tables.
    fn add(&mut self, plan: &Value, depth: usize) {
        let number = |name: &str| plan[name].as_f64().unwrap_or_default();
        let rows = (number("Actual Rows") + number("Rows Removed by Filter") + number("Rows Removed by Index Recheck"))
            * number("Actual Loops");
        let word = |name: &str| plan[name].as_str().unwrap_or_default().to_owned();
        let scans = plan["Relation Name"].is_string() && plan["Node Type"] != "ModifyTable";
        if scans {
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a count, which newer servers give as an average"
            )]
            {
                self.rows += rows as usize;
            }
        }
        let (node, of) =
            (word("Node Type"), [word("Relation Name"), word("Index Name"), word("Index Cond"), word("Filter")]);
        writeln!(self.plan, "{:depth$}  {node} {}: {rows} rows, {} pages", "", of.join(" "), pages(plan)).unwrap();
        for below in plan["Plans"].as_array().into_iter().flatten() {
            self.add(below, depth + 2);
        }
    }
}
