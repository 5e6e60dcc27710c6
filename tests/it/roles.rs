//! The roles of `deploy/postgres/roles.sql`: who may do what, tried as each of them, and the daemon as the worker.

use std::collections::BTreeSet;

use reprovisiond::config::DatabaseKind;
use reprovisiond::simulator::Simulator;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use crate::ops;
use crate::support::{BRISK, Daemon, Roles, calm};

const ROLES: [&str; 4] = ["producer", "worker", "operator", "auditor"];

/// Who may SELECT, INSERT, UPDATE, DELETE; `i` and `u`: some columns only. Nobody may TRUNCATE, nor make or change a table.
const MATRIX: [(&str, [&str; 4]); 16] = [
    //                       producer  worker    operator  auditor
    ("_sqlx_migrations", ["----", "S---", "S---", "S---"]),
    ("tenants", ["----", "SIU-", "S-u-", "----"]),
    ("reprovision_requests", ["-i--", "S---", "Si--", "S---"]),
    ("reprovision_queue", ["----", "S-UD", "S-UD", "----"]),
    ("graph_calls", ["----", "SIU-", "S---", "S---"]),
    ("device_results", ["----", "SI--", "SI--", "S---"]),
    ("workers", ["----", "SIU-", "S---", "----"]),
    ("operator_actions", ["----", "----", "SI--", "S---"]),
    ("pauses", ["----", "S---", "SI-D", "----"]),
    ("completion_tenants", ["----", "SIUD", "----", "----"]),
    ("completion_watches", ["----", "S-UD", "S---", "S---"]),
    ("completions", ["----", "SI--", "S---", "S---"]),
    ("request_status", ["S---", "----", "S---", "S---"]),
    ("device_history", ["----", "----", "S---", "S---"]),
    ("bucket_totals", ["----", "----", "S---", "S---"]),
    ("completion_totals", ["----", "----", "S---", "S---"]),
];

/// The columns of `i` and `u`, of a table and a letter.
const COLUMNS: [(&str, &str, &[&str]); 2] = [
    (
        "reprovision_requests",
        "i",
        &[
            "tenant",
            "managed_device_id",
            "requested_by",
            "reason",
            "external_id",
            "priority",
            "not_before",
            "expires_at",
            "force",
        ],
    ),
    ("tenants", "u", &["paused_at", "paused_by", "pause_reason"]),
];

/// Whether the database lets this be tried: whatever else it says of it, it is not that the role may not.
async fn allowed(connection: &mut PgConnection, sql: &str) -> bool {
    let mut attempt = connection.begin().await.unwrap();
    let tried = attempt.execute(AssertSqlSafe(sql.to_owned())).await;
    attempt.rollback().await.unwrap();
    match tried
        .as_ref()
        .map_err(|error| error.as_database_error().and_then(|e| e.code().map(std::borrow::Cow::into_owned)))
    {
        // Triggers refuse by other codes: these are the server's own words for what the role may not, and for a view that
        // takes no rows from anybody.
        Err(Some(code)) => code != "42501" && code != "55000",
        Err(None) => panic!("{sql}: {}", tried.unwrap_err()),
        Ok(_) => true,
    }
}

async fn columns(connection: &mut PgConnection, table: &str) -> Vec<String> {
    let sql =
        "SELECT attname::text FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped";
    sqlx::query_scalar(sql).bind(table).fetch_all(connection).await.unwrap()
}

/// What a role may do to a table, as the matrix has it.
async fn tried(connection: &mut PgConnection, table: &str) -> String {
    let columns = columns(connection, table).await;
    let mut found = String::new();
    let select = format!("SELECT * FROM {table} LIMIT 0");
    found.push(if allowed(connection, &select).await { 'S' } else { '-' });
    for (whole, letter) in [('I', 'i'), ('U', 'u')] {
        let mut may = BTreeSet::new();
        for column in &columns {
            let sql = match whole {
                'I' => format!("INSERT INTO {table} ({column}) VALUES (DEFAULT)"),
                _ => format!("UPDATE {table} SET {column} = DEFAULT WHERE false"),
            };
            if allowed(connection, &sql).await {
                may.insert(column.as_str());
            }
        }
        let some = COLUMNS.iter().find(|(of, kind, _)| *of == table && kind.starts_with(letter));
        found.push(match may.len() {
            0 => '-',
            n if n == columns.len() => whole,
            _ if some.is_some_and(|(_, _, some)| may == some.iter().copied().collect()) => letter,
            _ => panic!("{table}: {whole} of {may:?}"),
        });
    }
    let delete = format!("DELETE FROM {table} WHERE false");
    found.push(if allowed(connection, &delete).await { 'D' } else { '-' });
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_role_may_do_to_each_table_what_the_matrix_says_and_no_more() {
    let roles = Roles::migrated("reprovisiond").await;
    let there = roles
        .sql("SELECT relname FROM pg_class WHERE relnamespace = 'reprovisiond'::regnamespace AND relkind IN ('r', 'v', 'm', 'p')")
        .await;
    let there: BTreeSet<&str> = there.lines().collect();
    assert_eq!(there, MATRIX.iter().map(|(table, _)| *table).collect(), "a table without roles: see roles.sql too");

    let mut wrong = Vec::new();
    for (n, role) in ROLES.into_iter().enumerate() {
        let mut connection = roles.connect(role).await;
        for (table, expected) in MATRIX {
            let found = tried(&mut connection, table).await;
            if found != expected[n] {
                wrong.push(format!("{role} on {table}: {found}, not {}", expected[n]));
            }
        }
        let mut never = vec![
            "CREATE TABLE mine (n integer)".to_owned(),
            "CREATE TABLE public.mine (n integer)".to_owned(),
            "CREATE TEMPORARY TABLE tenants (name text)".to_owned(),
            "CREATE SCHEMA mine".to_owned(),
            "DROP SCHEMA reprovisiond CASCADE".to_owned(),
            "ALTER TABLE device_results DISABLE TRIGGER ALL".to_owned(),
            "SET session_replication_role = replica".to_owned(),
            "CREATE OR REPLACE FUNCTION reprovisiond.reprovisiond_refuse() RETURNS trigger LANGUAGE sql AS 'SELECT 1'"
                .to_owned(),
            format!("SET ROLE {}", roles.name("migrator")),
        ];
        for (table, _) in MATRIX.iter().take(12) {
            never.extend([
                format!("TRUNCATE {table} CASCADE"),
                format!("ALTER TABLE {table} ADD COLUMN mine integer"),
                format!("DROP TABLE {table} CASCADE"),
                format!("CREATE INDEX ON {table} ((1))"),
            ]);
        }
        for sql in never {
            if allowed(&mut connection, &sql).await {
                wrong.push(format!("{role}: {sql}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What only orders and questions of people use.
const OF_OPERATORS: &[&str] = &[
    "KNOWN_DEVICES",
    "KNOWN_REQUESTS",
    "SCOPE_ENTRIES",
    "LOCK_ENTRIES",
    "SCOPE_COUNTS",
    "PAUSED",
    "PAUSE_TENANTS",
    "PAUSE_SUBJECTS",
    "RESUME_TENANTS",
    "RESUME_SUBJECTS",
    "RECORD_ACTIONS",
    "ORDERED_RESULTS",
    "RETRY_ENTRIES",
    "ENQUEUE",
    "STATUS_BUCKETS",
    "STATUS_COMPLETIONS",
];

/// What both use, some of it for the page that the daemon serves.
const OF_BOTH: &[&str] = &[
    "APPLIED",
    "HAS_MIGRATIONS",
    "LOCK_TENANTS",
    "LEAVE_QUEUE",
    "WAKE",
    "NOW",
    "STATUS_TENANTS",
    "STATUS_PAUSES",
    "STATUS_QUEUE",
    "STATUS_FOLLOWED",
    "STATUS_WORKERS",
    "RESULTS",
    "RESULTS_BEFORE",
];

/// The statements that this role needs and may not run. EXPLAIN checks privileges as the execution does.
async fn refused(connection: &mut PgConnection, role: &str) -> Vec<&'static str> {
    let mut refused = Vec::new();
    for (name, sql) in reprovisiond::store::statements(&DatabaseKind::Postgres) {
        let operators = OF_OPERATORS.contains(name);
        let needed = OF_BOTH.contains(name) || operators == (role == "operator");
        if !needed {
            continue;
        }
        connection.execute(AssertSqlSafe(format!("PREPARE tried AS {sql}"))).await.unwrap();
        let count = "SELECT coalesce(cardinality(parameter_types), 0) FROM pg_prepared_statements WHERE name = 'tried'";
        let parameters: i32 = sqlx::query_scalar(count).fetch_one(&mut *connection).await.unwrap();
        let nulls = vec!["NULL"; usize::try_from(parameters).unwrap()].join(", ");
        let arguments = if nulls.is_empty() { nulls } else { format!("({nulls})") };
        if !allowed(connection, &format!("EXPLAIN EXECUTE tried{arguments}")).await {
            refused.push(*name);
        }
        connection.execute("DEALLOCATE tried").await.unwrap();
    }
    refused
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_and_operator_may_run_each_of_their_statements_and_need_each_of_their_privileges() {
    let roles = Roles::migrated("reprovisiond").await;
    for role in ["worker", "operator"] {
        let mut connection = roles.connect(role).await;
        assert_eq!(refused(&mut connection, role).await, [""; 0], "{role}");

        let mut unneeded = Vec::new();
        for (table, of) in MATRIX.iter().take(12) {
            for letter in of[ROLES.iter().position(|r| *r == role).unwrap()].chars().filter(|letter| *letter != '-') {
                // What people read with `psql`, and what a statement that reads need not name.
                if role == "operator" && letter == 'S' {
                    continue;
                }
                let verb = match letter {
                    'S' => "SELECT",
                    'I' | 'i' => "INSERT",
                    'U' | 'u' => "UPDATE",
                    _ => "DELETE",
                };
                roles.sql(&format!("REVOKE {verb} ON {table} FROM {}", roles.name(role))).await;
                if refused(&mut connection, role).await.is_empty() {
                    unneeded.push(format!("{role}: {verb} ON {table}"));
                }
                roles.apply().await;
            }
        }
        assert!(unneeded.is_empty(), "{}", unneeded.join("\n"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_daemon_works_as_the_worker_what_producers_ask_and_auditors_read_what_came_of_it() {
    let roles = Roles::new("reprovisiond").await;
    let simulator = Simulator::start(calm()).unwrap();
    let settings = format!(
        "{BRISK}\n[completion]\ntrack = true\nfirst_after = \"100ms\"\nshortest_delay = \"100ms\"\n{}",
        ops::ANY_PORT
    );
    let mut daemon = Daemon::migrated(&roles.url("migrator"), &simulator, &settings).await;
    roles.apply().await;
    daemon.reconfigure(|text| text.replace(&roles.name("migrator"), &roles.name("worker")));
    daemon.run(&simulator).await;

    let device = |n: usize| simulator.devices()[n].managed_device_id;
    let producer = roles.url("producer");
    let asks = format!(
        "INSERT INTO reprovision_requests (managed_device_id, requested_by, reason, external_id) \
         VALUES ('{}', 'helpdesk', 'ticket 1', 'one'), ('{}', 'helpdesk', 'ticket 2', 'two') ON CONFLICT DO NOTHING",
        device(2),
        device(3)
    );
    // Twice: the second time is harmless.
    roles.scratch.psql_by(&producer, &asks).await.unwrap();
    roles.scratch.psql_by(&producer, &asks).await.unwrap();
    daemon
        .until_rows(&roles.scratch, "SELECT count(*) FROM device_results WHERE bucket = 'successful' AND final", "2")
        .await;
    let told = "SELECT external_id, state, final FROM request_status ORDER BY 1";
    assert_eq!(roles.scratch.psql_by(&producer, told).await.unwrap(), "one|successful|t\ntwo|successful|t");

    let printed = roles.program("operator", &["enqueue", &device(4).to_string(), "--requested-by", "alice"]).await;
    assert!(printed.is_ok(), "{printed:?}");
    daemon.until_rows(&roles.scratch, "SELECT count(*) FROM device_results WHERE final", "3").await;
    for args in [
        &["pause", "--tenant", "default", "--by", "alice", "--reason", "outage"][..],
        &["pause", "--device", &device(5).to_string(), "--by", "alice", "--reason", "outage"],
        &["enqueue", &device(5).to_string()],
        &["status"],
        &["cancel", "--device", &device(5).to_string(), "--by", "alice", "--reason", "mistaken"],
        &["resume", "--tenant", "default", "--by", "alice", "--reason", "over"],
        &["resume", "--device", &device(5).to_string(), "--by", "alice", "--reason", "over"],
        &["results"],
    ] {
        let said = roles.program("operator", args).await;
        assert!(said.is_ok(), "{args:?}: {said:?}");
    }

    let audited = "SELECT requested_by, bucket FROM device_results WHERE final ORDER BY id";
    let read = roles.scratch.psql_by(&roles.url("auditor"), audited).await.unwrap();
    assert_eq!(read, "helpdesk|successful\nhelpdesk|successful\nalice|successful\n|cancelled");
    assert!(roles.program("auditor", &["results", "--output", "csv"]).await.unwrap().contains("helpdesk"));
    daemon.until_rows(&roles.scratch, "SELECT count(*) FROM completions WHERE state = 'done'", "3").await;
    let look_up = format!("/device?id={}", device(2));
    for path in ["/", &look_up, "/results.csv", "/readyz", "/metrics", "/status.json"] {
        let answer = ops::get(&ops::address(&daemon), path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    }
    assert!(daemon.stop().await.success());
    let refused =
        roles.program("worker", &["pause", "--all", "--by", "mallory", "--reason", "none"]).await.unwrap_err();
    assert!(refused.contains("permission denied"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_who_is_no_superuser_may_run_the_script_and_a_schema_in_use_becomes_the_migrators() {
    let roles = Roles::new("public").await;
    let admin = roles.name("admin");
    // Who has made everything so far.
    let database = format!("scratch_{}", roles.suffix());
    roles.sql(&format!("CREATE ROLE {admin} LOGIN CREATEROLE; ALTER DATABASE {database} OWNER TO {admin}")).await;
    roles.program("admin", &["migrate"]).await.unwrap();
    let said = roles.apply_by(&roles.url("admin")).await;
    assert!(said.contains("have their privileges"), "{said}");
    let owners = "SELECT DISTINCT relowner::regrole FROM pg_class WHERE relnamespace = 'public'::regnamespace
                  UNION SELECT DISTINCT proowner::regrole FROM pg_proc WHERE pronamespace = 'public'::regnamespace";
    assert_eq!(roles.sql(owners).await, roles.name("migrator"));
    roles.program("migrator", &["migrate"]).await.unwrap();
    assert!(roles.program("operator", &["status"]).await.is_ok());
    assert!(roles.program("producer", &["migrate"]).await.is_err());
}
