//! What is asked every few seconds never reads the whole history, however long that is.

use reprovisiond::config::DatabaseUrl;
use reprovisiond::store::statements;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _, SqliteConnection};

use super::{Backend, Db};
use crate::support::Scratch;

const DEVICE: &str = "00000000-0000-4000-8000-000000000017";

/// What the page and the metrics ask, with what they give.
const ASKED: [(&str, &[&str]); 13] = [
    ("STATUS_TENANTS", &[]),
    ("STATUS_PAUSES", &[]),
    ("STATUS_QUEUE", &[]),
    ("STATUS_FOLLOWED", &[]),
    ("STATUS_WORKERS", &[]),
    ("OLDEST_CALLS", &[]),
    ("DOUBTFUL", &["50"]),
    ("ACTIVITY_CALLS", &["86400", "1800"]),
    ("ACTIVITY_RESULTS", &["86400", "1800"]),
    ("ACTIVITY_COMPLETIONS", &["86400", "1800"]),
    ("LAST_CALLS", &["20"]),
    ("PENDING_OF_DEVICE", &[DEVICE, "500"]),
    ("DEVICE_HISTORY", &[DEVICE, "500"]),
];

/// What grows with the years.
const HISTORY: [&str; 4] = ["device_results", "graph_calls", "completions", "reprovision_requests"];

/// 30,000 requests of 10,000 devices, ten a call, in 100 days, and a few that are in doubt.
const FILL: &str = "
    SET session_replication_role = replica;
    INSERT INTO tenants (name) VALUES ('default') ON CONFLICT DO NOTHING;
    INSERT INTO reprovision_requests (tenant, managed_device_id, created_at)
    SELECT 'default', '00000000-0000-4000-8000-' || lpad((n % 10000)::text, 12, '0'), now() - n * interval '5 minutes' FROM generate_series(1, 30000) n;
    INSERT INTO graph_calls (id, tenant, action, worker, state, device_count, managed_device_ids, request_ids, request_digest, sent_at, finished_at)
    SELECT ('00000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid, 'default', 'x', '00000000-0000-0000-0000-000000000000', 'answered', 1, '{x}', '{1}', 'x', now() - n * interval '50 minutes', now()
    FROM generate_series(1, 3000) n;
    INSERT INTO device_results (request_id, call_id, tenant, managed_device_id, attempt, bucket, source, final, recorded_at)
    SELECT r.id, ('00000000-0000-0000-0000-' || lpad((r.id / 10 + 1)::text, 12, '0'))::uuid, 'default', r.managed_device_id, 1, 'successful', 'answer', true, r.created_at FROM reprovision_requests r;
    INSERT INTO completions (request_id, call_id, tenant, managed_device_id, state, looks, started_at, evidence, recorded_at)
    SELECT d.request_id, d.call_id, 'default', d.managed_device_id, 'done', 1, d.recorded_at, '{}', d.recorded_at FROM device_results d;
    INSERT INTO reprovision_queue (request_id, tenant, managed_device_id, priority, state, ready, due_at, call_id)
    SELECT r.id, 'default', r.managed_device_id, 0, 'unknown', true, now(), '00000000-0000-0000-0000-000000000001' FROM reprovision_requests r ORDER BY r.id LIMIT 20;
    SET session_replication_role = origin;
    ANALYZE";

fn sql(db: &Db, name: &str) -> &'static str {
    let kind = DatabaseUrl::parse(&db.scratch.url).unwrap().kind();
    statements(&kind).iter().find(|(other, _)| *other == name).map(|(_, sql)| *sql).expect(name)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_reads_no_history_from_end_to_end() {
    let db = Db::new(Scratch::new(Backend::Postgres).await).await;
    let mut connection = PgConnection::connect(&db.scratch.url).await.unwrap();
    connection.execute(FILL).await.unwrap();
    let mut bad = Vec::new();
    for (name, given) in ASKED {
        connection.execute(AssertSqlSafe(format!("PREPARE asked AS {}", sql(&db, name)))).await.unwrap();
        let given = given.iter().map(|value| format!("'{value}'")).collect::<Vec<_>>().join(", ");
        let given = if given.is_empty() { given } else { format!("({given})") };
        let explain = AssertSqlSafe(format!("EXPLAIN EXECUTE asked{given}"));
        let plan: Vec<String> = sqlx::query_scalar(explain).fetch_all(&mut connection).await.unwrap();
        connection.execute("DEALLOCATE asked").await.unwrap();
        if HISTORY.iter().any(|table| plan.iter().any(|line| line.contains(&format!("Seq Scan on {table} ")))) {
            bad.push(format!("{name}\n{}", plan.join("\n")));
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n\n"));
}

/// A long queue of which the planner believes that next to nothing is busy, as it does in the middle of a large job.
const QUEUE: &str = "
    SET session_replication_role = replica;
    INSERT INTO reprovision_requests (tenant, managed_device_id)
    SELECT 'default', '00000000-0000-4000-9000-' || lpad(n::text, 12, '0') FROM generate_series(1, 20000) n;
    INSERT INTO reprovision_queue (request_id, tenant, managed_device_id, priority, state, ready, due_at)
    SELECT r.id, 'default', r.managed_device_id, 0, 'queued', true, now() FROM reprovision_requests r
    WHERE r.managed_device_id LIKE '00000000-0000-4000-9000-%';
    SET session_replication_role = origin;
    ANALYZE reprovision_queue";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_compares_what_is_due_with_no_list_of_what_is_busy() {
    let db = Db::new(Scratch::new(Backend::Postgres).await).await;
    let mut connection = PgConnection::connect(&db.scratch.url).await.unwrap();
    connection.execute("INSERT INTO tenants (name) VALUES ('default') ON CONFLICT DO NOTHING").await.unwrap();
    connection.execute(QUEUE).await.unwrap();
    connection.execute(AssertSqlSafe(format!("PREPARE due AS {}", sql(&db, "DUE")))).await.unwrap();
    let plan: Vec<String> =
        sqlx::query_scalar("EXPLAIN EXECUTE due('default', 4000)").fetch_all(&mut connection).await.unwrap();
    let plan = plan.join("\n");
    assert!(plan.contains("Index Scan using reprovision_queue_next"), "{plan}");
    assert!(plan.contains("Scan using reprovision_queue_busy"), "{plan}");
    assert!(!plan.contains("Join") && !plan.contains("Nested Loop") && !plan.contains("Materialize"), "{plan}");
}

/// SQLite plans without looking at the rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_reads_no_history_from_end_to_end() {
    let db = Db::new(Scratch::new(Backend::Sqlite).await).await;
    let mut connection = SqliteConnection::connect(&db.scratch.url).await.unwrap();
    let mut bad = Vec::new();
    for (name, given) in ASKED {
        let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {}", sql(&db, name)));
        let query = given.iter().fold(sqlx::query(explain), |query, value| match value.parse::<i64>() {
            Ok(number) => query.bind(number),
            Err(_) => query.bind(*value),
        });
        let plan = query.fetch_all(&mut connection).await.unwrap();
        let plan: Vec<String> = plan.iter().map(|row| row.get::<String, _>("detail")).collect();
        let aliases = ["r", "c", "d", "k", "f"];
        let whole = |line: &String| {
            let scanned = line.strip_prefix("SCAN ").and_then(|rest| rest.split(' ').next());
            scanned.is_some_and(|table| HISTORY.contains(&table) || aliases.contains(&table))
        };
        // In the order of its index, and no further than the limit.
        let ordered = name == "LAST_CALLS" && plan == ["SCAN graph_calls USING INDEX graph_calls_sent_at"];
        if plan.iter().any(whole) && !ordered {
            bad.push(format!("{name}\n{}", plan.join("\n")));
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n\n"));
}

/// A list that travels as JSON is the outer loop: read again for each row of a table, a call of 500 devices costs 250,000 rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_reads_each_list_once() {
    let db = Db::new(Scratch::new(Backend::Sqlite).await).await;
    let mut connection = SqliteConnection::connect(&db.scratch.url).await.unwrap();
    let kind = DatabaseUrl::parse(&db.scratch.url).unwrap().kind();
    let (mut lists, mut bad) = (0, Vec::new());
    for (name, statement) in statements(&kind) {
        let plan = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}")));
        let plan = plan.fetch_all(&mut connection).await.unwrap();
        let steps = plan.iter().map(|row| (row.get::<i64, _>("parent"), row.get::<String, _>("detail")));
        let loops: Vec<_> =
            steps.filter(|(_, step)| step.starts_with("SCAN ") || step.starts_with("SEARCH ")).collect();
        for (n, (parent, step)) in loops.iter().enumerate().filter(|(_, (_, step))| step.contains("VIRTUAL TABLE")) {
            lists += 1;
            let outer = loops[..n].iter().find(|(other, _)| other == parent);
            // The list of one call, found by its key.
            let of_one = outer.is_some_and(|(_, outer)| outer.ends_with("USING PRIMARY KEY (id=?)"));
            if outer.is_some() && !of_one {
                bad.push(format!("{name}: {step}, for each row of {outer:?}"));
            }
        }
    }
    assert!(lists > 20, "{lists}");
    assert_eq!(bad, [""; 0]);
}
