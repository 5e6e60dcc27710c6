//! Intake: what a producer may rely on, whatever client it has, and what the database refuses to anybody.

use sqlx::{Connection, Executor, PgConnection};

use super::{Backend, Db, device, requests};
use crate::support::{Scratch, on_both};

const DEVICE: &str = "30d0e128-de93-41dc-89ec-33d84bb662a0";

/// An INSERT of one row with these columns besides the device.
fn insert(columns: &str, values: &str) -> String {
    format!("INSERT INTO reprovision_requests (managed_device_id, {columns}) VALUES ('{DEVICE}', {values})")
}

fn insert_device(device: &str) -> String {
    format!("INSERT INTO reprovision_requests (managed_device_id) VALUES ({device})")
}

on_both! {
    async fn a_device_id_alone_is_a_request(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.sql(&insert_device(&format!("'{DEVICE}'"))).await;
        let status = "SELECT request_id, tenant, managed_device_id, state, attempts, due_at = requested_at FROM request_status";
        let yes = if db.scratch.backend() == Backend::Postgres { "t" } else { "1" };
        assert_eq!(db.sql(status).await, format!("1|default|{DEVICE}|queued|0|{yes}"));
        assert_eq!(requests(&db.claim().await), [[1]]);
    }

    async fn a_device_id_in_any_case_and_with_braces_is_canonical_downstream(scratch: Scratch) {
        let db = Db::new(scratch).await;
        let upper = DEVICE.to_uppercase();
        for text in [&upper, &format!("{{{upper}}}"), &format!("{{{DEVICE}}}")] {
            db.sql(&insert_device(&format!("'{text}'"))).await;
        }
        for relation in ["reprovision_queue", "request_status", "device_history"] {
            let seen = db.sql(&format!("SELECT DISTINCT managed_device_id FROM {relation}")).await;
            assert_eq!(seen, DEVICE, "{relation}");
        }
        // Written three ways it is still one device.
        assert_eq!(requests(&db.claim().await), [[1]]);
    }

    async fn what_is_no_device_id_is_refused_with_a_sentence(scratch: Scratch) {
        let db = Db::new(scratch).await;
        let short = &DEVICE[1..];
        for (text, sentence) in [
            ("NULL".to_owned(), "managed_device_id is required"),
            ("''".to_owned(), "expected a GUID such as"),
            (format!("'{short}'"), "expected a GUID such as"),
            (format!("'{DEVICE}0'"), "expected a GUID such as"),
            (format!("'{{{DEVICE}'"), "expected a GUID such as"),
            (format!("'{DEVICE}}}'"), "expected a GUID such as"),
            (format!("'{{{{{DEVICE}}}}}'"), "expected a GUID such as"),
            (format!("' {DEVICE}'"), "expected a GUID such as"),
            (format!("'{DEVICE}\n'"), "expected a GUID such as"),
            (format!("'{}'", DEVICE.replace('-', "")), "expected a GUID such as"),
            (format!("'{}'", DEVICE.replace('3', "g")), "expected a GUID such as"),
            // Kelvin sign: lower case of it is k in Unicode, and a width that counts characters would let it in.
            (format!("'{}'", DEVICE.replacen('3', "\u{212a}", 1)), "expected a GUID such as"),
            ("'00000000-0000-0000-0000-000000000000'".to_owned(), "GUID of zeros"),
            ("'{00000000-0000-0000-0000-000000000000}'".to_owned(), "GUID of zeros"),
        ] {
            let said = db.refusal(&insert_device(&text)).await;
            assert!(said.contains("reprovision_requests.managed_device_id") && said.contains(sentence), "{text}: {said}");
        }
        assert_eq!(db.sql("SELECT count(*) FROM reprovision_queue").await, "0");
    }

    async fn a_column_with_a_wrong_value_is_refused_with_a_sentence_and_nothing_is_queued(scratch: Scratch) {
        let db = Db::new(scratch).await;
        let on_sqlite = db.scratch.backend() == Backend::Sqlite;
        let long = |bytes: usize| format!("'{}'", "x".repeat(bytes));
        // Three bytes a character: limits count bytes.
        let wide = format!("'{}'", "\u{20ac}".repeat(1334));
        let mut cases = vec![
            ("tenant", "'nobody'".to_owned(), "tenant is not a configured tenant"),
            ("tenant", "NULL".to_owned(), "tenant is not a configured tenant"),
            ("not_before, expires_at", "'2030-01-02T00:00:00Z', '2030-01-01T00:00:00Z'".to_owned(), "must lie after not_before"),
            ("not_before, expires_at", "'2030-01-01T00:00:00Z', '2030-01-01T00:00:00Z'".to_owned(), "must lie after not_before"),
            ("not_before, expires_at", "'2030-01-01T01:00:00+02:00', '2029-12-31T22:30:00Z'".to_owned(), "must lie after not_before"),
            ("priority", "1001".to_owned(), "priority must be a whole number from -1000 to 1000"),
            ("priority", "-1001".to_owned(), "priority must be a whole number from -1000 to 1000"),
            ("requested_by", long(257), "requested_by must be text of at most 256 bytes"),
            ("reason", long(4001), "reason must be text of at most 4000 bytes"),
            ("reason", wide, "reason must be text of at most 4000 bytes"),
            ("external_id", long(257), "external_id must be text of at most 256 bytes"),
            ("created_at", "'2020-01-01T00:00:00.000Z'".to_owned(), "created_at is given by the database"),
            ("id", "7".to_owned(), if on_sqlite { "id is given by the database" } else { "column \"id\"" }),
            ("id", "-1".to_owned(), if on_sqlite { "id is given by the database" } else { "column \"id\"" }),
        ];
        if on_sqlite {
            for column in ["not_before", "expires_at"] {
                for time in ["tomorrow", "1793000000", "2026-02-30T00:00:00Z", "2026-01-31", "2026-01-31T25:00:00Z",
                    "2026-01-31T22:00:00Z or so", "9999-12-31T23:59:59-01:00"] {
                    cases.push((column, format!("'{time}'"), "is not a time: write UTC such as"));
                }
            }
            cases.push(("force", "2".to_owned(), "force must be 0 or 1"));
            cases.push(("force", "NULL".to_owned(), "force must be 0 or 1"));
            cases.push(("priority", "NULL".to_owned(), "priority must be a whole number"));
            cases.push(("reason", "'a' || char(0) || 'b'".to_owned(), "without NUL characters"));
        } else {
            cases.push(("not_before", "'someday'".to_owned(), "invalid input syntax for type timestamp"));
            cases.push(("not_before", "'infinity'".to_owned(), "must be times between the years 1 and 9999"));
            cases.push(("expires_at", "'-infinity'".to_owned(), "must be times between the years 1 and 9999"));
            cases.push(("expires_at", "'10000-01-01T00:00:00Z'".to_owned(), "must be times between the years 1 and 9999"));
            cases.push(("force", "'perhaps'".to_owned(), "invalid input syntax for type boolean"));
        }
        for (columns, values, sentence) in cases {
            let said = db.refusal(&insert(columns, &values)).await;
            assert!(said.contains(sentence), "{columns} = {values:.60}: {said}");
        }
        assert_eq!(db.sql("SELECT count(*) FROM reprovision_requests").await, "0");
        assert_eq!(db.sql("SELECT count(*) FROM reprovision_queue").await, "0");
    }

    async fn one_wrong_row_among_many_refuses_all_of_their_statement(scratch: Scratch) {
        let db = Db::new(scratch).await;
        for (wrong, sentence) in [
            (format!("'{DEVICE}', 'nobody', 0"), "tenant is not a configured tenant"),
            ("'a PC', 'default', 0".to_owned(), "expected a GUID such as"),
            (format!("'{DEVICE}', 'default', 1001"), "priority must be a whole number"),
        ] {
            let rows: Vec<String> = (1..100).map(|n| format!("('{}', 'default', 0)", device(n))).collect();
            let said = db.refusal(&format!("INSERT INTO reprovision_requests (managed_device_id, tenant, priority) VALUES {}, ({wrong})", rows.join(", "))).await;
            assert!(said.contains(sentence), "{wrong}: {said}");
        }
        assert_eq!(db.sql("SELECT (SELECT count(*) FROM reprovision_requests) + (SELECT count(*) FROM reprovision_queue)").await, "0");
    }

    async fn the_largest_values_allowed_are_accepted(scratch: Scratch) {
        let db = Db::new(scratch).await;
        let text = |bytes: usize| "x".repeat(bytes);
        let (by, reason, reference) = (text(256), text(4000), text(256));
        for priority in [-1000, 1000] {
            db.sql(&insert("requested_by, reason, priority", &format!("'{by}', '{reason}', {priority}"))).await;
        }
        db.sql(&insert("external_id, not_before, expires_at, force", &format!("'{reference}', '0001-01-01T00:00:00Z', '9999-12-31T23:59:59Z', '1'"))).await;
        assert_eq!(db.sql("SELECT count(*) FROM reprovision_queue").await, "3");
    }

    async fn times_with_an_offset_or_a_blank_mean_the_same_instant_on_both_databases(scratch: Scratch) {
        let db = Db::new(scratch).await;
        for time in ["2030-01-01T10:00:00Z", "2030-01-01 10:00:00+00:00", "2030-01-01T12:00:00.000+02:00", "2030-01-01T10:00Z"] {
            db.sql(&insert("not_before", &format!("'{time}'"))).await;
        }
        let due = "SELECT count(*) FROM reprovision_queue WHERE due_at = '2030-01-01T10:00:00.000Z' AND wait_reason = 'not_before'";
        assert_eq!(db.sql(due).await, "4");
    }

    async fn the_same_external_id_again_is_harmless_with_do_nothing_and_refused_without(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.store.register_tenants(&["other".parse().unwrap()]).await.unwrap();
        let first = insert("external_id, reason", "'INC-1', 'first'");
        db.sql(&first).await;
        db.sql(&format!("{first} ON CONFLICT DO NOTHING")).await;
        db.sql(&format!("{first} ON CONFLICT (tenant, external_id) DO NOTHING")).await;
        let said = db.refusal(&first).await.to_lowercase();
        assert!(said.contains("unique"), "{said}");
        let said = db.refusal(&format!("{first} ON CONFLICT (tenant, external_id) DO UPDATE SET reason = 'second'")).await;
        assert!(said.contains("insert only"), "{said}");
        let count = "SELECT count(*), min(reason), max(reason) FROM reprovision_requests";
        assert_eq!(db.sql(count).await, "1|first|first");
        // Unique per tenant, and no reference is not a reference.
        db.sql(&insert("external_id, tenant", "'INC-1', 'other'")).await;
        db.sql(&insert("external_id", "NULL")).await;
        db.sql(&insert("external_id", "NULL")).await;
        assert_eq!(db.sql("SELECT count(*) FROM reprovision_queue").await, "4");
    }

    async fn one_bad_row_refuses_the_whole_statement(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.refusal(&format!("INSERT INTO reprovision_requests (managed_device_id) VALUES ('{DEVICE}'), ('x')")).await;
        assert_eq!(db.sql("SELECT count(*) FROM reprovision_requests").await, "0");
        assert_eq!(db.sql("SELECT count(*) FROM reprovision_queue").await, "0");
    }

    async fn what_was_asked_what_was_done_and_what_came_of_it_is_never_changed_or_deleted(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.ask(&[1, 2]).await;
        db.sql(&insert("expires_at", "'2020-01-01T00:00:00Z'")).await;
        db.claim().await;
        db.sql("UPDATE graph_calls SET state = 'answered', finished_at = sent_at, http_status = 200").await;
        for (sql, sentence) in [
            ("UPDATE reprovision_requests SET reason = 'x'", "insert only"),
            ("DELETE FROM reprovision_requests", "insert only"),
            ("UPDATE device_results SET detail = 'x'", "append-only"),
            ("DELETE FROM device_results", "append-only"),
            ("UPDATE graph_calls SET http_status = 500", "completed once"),
            ("UPDATE graph_calls SET state = 'sending', finished_at = NULL", "completed once"),
            ("DELETE FROM graph_calls", "append-only"),
            ("DELETE FROM reprovision_queue", "only with a final result"),
            ("DELETE FROM reprovision_queue WHERE request_id = 2", "only with a final result"),
        ] {
            let said = db.refusal(sql).await;
            assert!(said.contains(sentence), "{sql}: {said}");
        }
        if db.scratch.backend() == Backend::Postgres {
            for table in ["reprovision_requests", "device_results", "graph_calls", "reprovision_queue"] {
                let said = db.refusal(&format!("TRUNCATE {table} CASCADE")).await;
                assert!(said.contains("reprovision") || said.contains("append-only"), "{table}: {said}");
                assert_ne!(db.sql(&format!("SELECT count(*) FROM {table}")).await, "0", "{table}");
            }
        }
        let count = "SELECT (SELECT count(*) FROM reprovision_requests), (SELECT count(*) FROM reprovision_queue),
                            (SELECT count(*) FROM graph_calls), (SELECT count(*) FROM device_results)";
        assert_eq!(db.sql(count).await, "3|2|1|1");
    }

    async fn an_intent_is_never_changed_not_even_while_its_call_is_under_way(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.ask(&[1]).await;
        db.claim().await;
        for set in ["sent_at = '2020-01-01T00:00:00.000Z'", "request_digest = 'x'", "tenant = 'x'", "action = 'x'"] {
            let said = db.refusal(&format!("UPDATE graph_calls SET {set}")).await;
            assert!(said.contains("an intent is never changed"), "{set}: {said}");
        }
    }

    async fn thousands_of_rows_in_one_statement_are_all_queued(scratch: Scratch) {
        let db = Db::new(scratch).await;
        let devices: Vec<u32> = (1..=5000).collect();
        db.ask(&devices).await;
        let count = "SELECT count(*), count(DISTINCT managed_device_id), min(request_id), max(request_id) FROM reprovision_queue";
        assert_eq!(db.sql(count).await, "5000|5000|1|5000");
    }

    async fn hostile_text_is_stored_as_it_is_and_does_nothing(scratch: Scratch) {
        let db = Db::new(scratch).await;
        for hostile in [
            "'); DROP TABLE reprovision_requests; --",
            "two\nlines\r\nand\ttabs \u{1b}[31mred\u{1b}[0m \u{7}",
            "=cmd|' /C calc'!A0",
            "<script>alert(1)</script> \u{202e}backwards\u{2028}",
            "\\x00 \\N %s $1 ?1 {} \u{1f4a3}",
        ] {
            let quoted = format!("'{}'", hostile.replace('\'', "''"));
            db.sql(&insert("reason, requested_by, external_id", &format!("{quoted}, {quoted}, {quoted}"))).await;
            let same = format!("SELECT count(*) FROM request_status WHERE reason = {quoted} AND requested_by = {quoted} AND external_id = {quoted}");
            assert_eq!(db.sql(&same).await, "1", "{hostile:?}");
        }
        assert_eq!(db.sql("SELECT count(*) FROM reprovision_queue").await, "5");
    }
}

#[tokio::test]
async fn no_conflict_clause_of_sqlite_loses_or_replaces_a_request() {
    let db = Db::new(Scratch::new(Backend::Sqlite).await).await;
    db.sql(&insert("external_id, reason", "'INC-1', 'first'")).await;
    db.claim().await;
    let everything = "SELECT * FROM reprovision_requests; SELECT * FROM reprovision_queue; SELECT * FROM insert_guard";
    let before = db.sql(everything).await;
    let again = |verb: &str, columns: &str, values: &str| insert(columns, values).replacen("INSERT", verb, 1);

    for pragmas in ["", "PRAGMA recursive_triggers = ON; ", "PRAGMA foreign_keys = ON; "] {
        for verb in ["INSERT OR REPLACE", "REPLACE"] {
            for (columns, values, sentence) in [
                ("external_id, reason", "'INC-1', 'second'", "INSERT OR REPLACE is refused"),
                ("id, reason", "1, 'second'", "id is given by the database"),
                ("id, reason", "-1, 'second'", "id is given by the database"),
                ("id, external_id", "1, 'INC-1'", "INSERT OR REPLACE is refused"),
            ] {
                let said = db.refusal(&format!("{pragmas}{}", again(verb, columns, values))).await;
                assert!(said.contains(sentence), "{verb} {columns}: {said}");
                assert_eq!(db.sql(everything).await, before, "{pragmas}{verb} {columns} {values}");
            }
        }
        // Harmless, as with ON CONFLICT DO NOTHING.
        db.sql(&format!("{pragmas}{}", again("INSERT OR IGNORE", "external_id, reason", "'INC-1', 'second'"))).await;
        for verb in ["INSERT OR ABORT", "INSERT OR FAIL", "INSERT OR ROLLBACK"] {
            db.refusal(&format!("{pragmas}{}", again(verb, "external_id, reason", "'INC-1', 'second'"))).await;
        }
        for verb in ["INSERT OR IGNORE", "INSERT OR FAIL"] {
            let bad = insert_device("'x'").replacen("INSERT", verb, 1);
            assert!(
                db.refusal(&bad).await.contains("expected a GUID"),
                "{verb}: a bad row is never dropped in silence"
            );
        }
        assert_eq!(db.sql(everything).await, before, "{pragmas}");
    }
    // With a reference of its own a replacing INSERT replaces nothing, and is one like any other.
    db.sql(&again("INSERT OR REPLACE", "external_id", "'INC-2'")).await;
    assert_eq!(db.sql("SELECT count(*) FROM reprovision_queue").await, "2");
}

#[tokio::test]
async fn no_conflict_clause_of_sqlite_replaces_a_result_a_call_or_a_queue_entry() {
    let db = Db::new(Scratch::new(Backend::Sqlite).await).await;
    db.ask(&[1, 1]).await;
    db.sql(&insert("expires_at", "'2020-01-01T00:00:00Z'")).await;
    db.claim().await;
    let everything = "SELECT * FROM device_results; SELECT * FROM graph_calls; SELECT * FROM reprovision_queue";
    let before = db.sql(everything).await;
    for (sql, sentence) in [
        ("REPLACE INTO device_results SELECT * FROM device_results", "append-only"),
        (
            "REPLACE INTO device_results (request_id, tenant, managed_device_id, attempt, bucket, source, final, recorded_at)
             SELECT request_id, tenant, managed_device_id, 1, 'successful', 'operator', 1, recorded_at FROM device_results",
            "append-only",
        ),
        ("REPLACE INTO graph_calls SELECT * FROM graph_calls", "append-only"),
        ("REPLACE INTO reprovision_queue SELECT * FROM reprovision_queue", "one entry a request"),
        ("UPDATE OR REPLACE reprovision_queue SET state = 'sending', call_id = (SELECT id FROM graph_calls) WHERE request_id = 2", "one entry a request"),
        ("UPDATE OR REPLACE reprovision_queue SET request_id = 1 WHERE request_id = 2", "one entry a request"),
    ] {
        let said = db.scratch.sqlite3_or_psql(sql).await;
        assert_eq!(db.sql(everything).await, before, "{sql}");
        assert!(said.clone().is_err_and(|e| e.contains(sentence)), "{sql}: {said:?}");
    }
}

#[tokio::test]
async fn rows_that_come_by_copy_are_queued_like_any_other() {
    let db = Db::new(Scratch::new(Backend::Postgres).await).await;
    let rows: Vec<String> = (1..=3000).map(|n| format!("{}\tINC-{n}", device(n))).collect();
    let rows = rows.join("\n");
    db.sql(&format!("COPY reprovision_requests (managed_device_id, external_id) FROM stdin;\n{rows}\n\\.\n")).await;
    assert_eq!(db.sql("SELECT count(*) FROM reprovision_queue WHERE state = 'queued' AND ready").await, "3000");
    let said = db.refusal("COPY reprovision_requests (managed_device_id) FROM stdin;\nx\n\\.\n").await;
    assert!(said.contains("expected a GUID"), "{said}");
}

#[tokio::test]
async fn rows_of_a_transaction_that_commits_late_and_out_of_order_are_claimed_all_the_same() {
    let db = Db::new(Scratch::new(Backend::Postgres).await).await;
    let mut slow = PgConnection::connect(&db.scratch.url).await.unwrap();
    slow.execute("BEGIN").await.unwrap();
    slow.execute(sqlx::AssertSqlSafe(insert_device(&format!("'{}'", device(1))))).await.unwrap();
    db.ask(&[2]).await;
    assert_eq!(requests(&db.claim().await), [[2]]);
    slow.execute("COMMIT").await.unwrap();
    assert_eq!(requests(&db.claim().await), [[1]]);
}
