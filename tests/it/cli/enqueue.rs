//! `reprovisiond enqueue`

use super::fill::device;
use super::program::{Program, check, plain};
use crate::support::on_both;

const DEVICE: &str = "30d0e128-de93-41dc-89ec-33d84bb662a0";

#[test]
fn help_begins_with_examples() {
    check!(plain(&["enqueue", "--help"]), @"");
}

#[test]
fn a_wrong_command_line_says_what_is_wrong() {
    check!(plain(&["enqueue"]), @"");
    check!(plain(&["enqueue", DEVICE, "--priority", "1001", "--from", "x.csv"]), @"");
    check!(plain(&["enqueue", DEVICE, "--not-before", "tomorrow"]), @"");
    check!(plain(&["enqueue", DEVICE, DEVICE]), @"");
    check!(plain(&["enqueue", DEVICE, "30d0e128-de93-41dc-89ec-33d84bb662a1", "--external-id", "x"]), @"");
    check!(plain(&["enqueue", "--from", "nosuch.csv"]), @"");
}

on_both! {
    async fn ids_on_the_command_line_are_queued_once_by_their_external_id(scratch: Scratch) {
        let program = Program::new(&scratch).await;
        let args = ["enqueue", "{30D0E128-DE93-41DC-89EC-33D84BB662A0}", "--external-id", "t-1", "--priority", "-5", "--reason", "why"];
        check!(program.run(&args).await, @"");
        check!(program.run(&args).await, @"");
        check!(program.run(&[&args[..], &["--output", "json"]].concat()).await, @"");
        check!(program.run(&[&args[..], &["--output", "csv"]].concat()).await, @"");
        let row = scratch.sqlite3_or_psql("SELECT managed_device_id, tenant, reason, external_id, priority FROM reprovision_requests").await;
        assert_eq!(row.as_deref(), Ok("30d0e128-de93-41dc-89ec-33d84bb662a0|default|why|t-1|-5"));
        let by = scratch.sqlite3_or_psql("SELECT requested_by FROM reprovision_requests").await.unwrap();
        assert!(by.starts_with("tester@"), "{by}");
    }

    async fn csv_may_come_from_excel(scratch: Scratch) {
        let program = Program::new(&scratch).await;
        let csv = format!("\u{feff}reason;managed_device_id;force\r\n\"two\r\nlines; and \"\"quotes\"\"\";{};yes\r\n\r\n;{};\r\n", device(1), device(2));
        program.file("rows.csv", csv);
        check!(program.run(&["enqueue", "--from", "rows.csv", "--tenant", "contoso", "--requested-by", "bob"]).await, @"");
        let rows = scratch.sqlite3_or_psql("SELECT length(reason), tenant, requested_by, CASE WHEN force THEN 1 ELSE 0 END FROM reprovision_requests ORDER BY id").await;
        assert_eq!(rows.as_deref(), Ok("27|contoso|bob|1\n|contoso|bob|0"));
    }

    async fn ndjson_comes_from_standard_input(scratch: Scratch) {
        let program = Program::new(&scratch).await;
        let row = format!(r#"{{"managed_device_id":"{}","priority":7,"force":true,"expires_at":"2099-01-01T00:00:00+01:00","reason":null}}"#, device(1));
        check!(program.run_with_stdin(&["enqueue", "--from", "-", "--format", "ndjson"], &format!("{row}\n\n")).await, @"");
        let wrong = "{\"device\":1}\n{\"priority\":\"x\"}\nfoo\n[]\n{\"reason\":[1],\"reason\":\"\"}\n";
        check!(program.run_with_stdin(&["enqueue", "--from", "-", "--format", "ndjson"], wrong).await, @"");
    }

    async fn every_mistake_is_told_with_its_line_and_nothing_is_queued(scratch: Scratch) {
        let program = Program::new(&scratch).await;
        let long = "x".repeat(257);
        program.file("rows.csv", [
            "managed_device_id,tenant,priority,not_before,expires_at,force,external_id".to_owned(),
            format!("{},,,,,,", device(1)),
            String::new(),
            "hello\u{1b}[2J,Nope,1e3,never,2026-01-01,maybe,".to_owned(),
            format!("{},,,2026-01-01T00:00:00Z,2026-01-01T00:00:00.000Z,,{long}", device(2)),
            "00000000-0000-0000-0000-000000000000,,,,,,a\0b".to_owned(),
            format!("{},,,,,", device(3)),
            format!("{},,,,,,e", device(4)),
            format!("{},,,,,,e", device(5)),
            format!("{},,,,,,e", device(4)),
            format!("{},,,,,,", device(1)),
        ].join("\r\n"));
        check!(program.run(&["enqueue", "--from", "rows.csv"]).await, @"");
        let rows = scratch.sqlite3_or_psql("SELECT count(*) FROM reprovision_requests").await;
        assert_eq!(rows.as_deref(), Ok("0"));
    }

    async fn many_mistakes_are_counted(scratch: Scratch) {
        let program = Program::new(&scratch).await;
        program.file("rows.csv", format!("managed_device_id\n{}", "x\n".repeat(1234)));
        let said = program.run(&["enqueue", "--from", "rows.csv"]).await;
        assert_eq!(said.stderr.lines().count(), 22, "{said}");
        assert!(said.stderr.contains("there are 1234 mistakes"), "{said}");
        assert!(said.stderr.ends_with("\n  and 1214 more\n"), "{said}");
    }

    async fn a_header_is_judged_before_any_row(scratch: Scratch) {
        let program = Program::new(&scratch).await;
        let header = async |text: &str| program.run_with_stdin(&["enqueue", "--from", "-"], text).await;
        check!(header("ManagedDeviceId,Reasn,zzz,reason,reason\nx\n").await, @"");
        check!(header(DEVICE).await, @"");
        check!(header("").await, @"");
        check!(header("managed_device_id\n").await, @"");
        check!(header("PK\u{3}\u{4}").await, @"");
        check!(header(&format!("managed_device_id,reason\n{DEVICE},\"never closed\n{DEVICE},b\n")).await, @"");
    }

    async fn an_unknown_tenant_is_named_with_its_line(scratch: Scratch) {
        let program = Program::new(&scratch).await;
        program.file("rows.csv", format!("managed_device_id,tenant\n{},\n{},contosso\n{},zzz\n", device(1), device(2), device(3)));
        check!(program.run(&["enqueue", "--from", "rows.csv"]).await, @"");
        let rows = scratch.sqlite3_or_psql("SELECT count(*) FROM reprovision_requests").await;
        assert_eq!(rows.as_deref(), Ok("0"));
    }

    async fn more_than_one_statement_is_still_one_transaction(scratch: Scratch) {
        let program = Program::new(&scratch).await;
        let mut csv = "managed_device_id,tenant\n".to_owned();
        csv.extend((0..20_001).map(|n| format!("{},\n", device(n))));
        program.file("good.csv", &csv);
        program.file("bad.csv", format!("{csv}{},zzz\n", device(20_001)));
        let said = program.run(&["enqueue", "--from", "bad.csv"]).await;
        assert!(said.code == 2 && said.stderr.contains("bad.csv:20003: tenant: `zzz`"), "{said}");
        assert_eq!(scratch.sqlite3_or_psql("SELECT count(*) FROM reprovision_queue").await.as_deref(), Ok("0"));
        check!(program.run(&["enqueue", "--from", "good.csv"]).await, @"");
    }

    async fn a_database_that_is_not_there_has_its_own_exit_code(scratch: Scratch) {
        let said = Program::new(&scratch).await.command(&["enqueue", DEVICE]).args(["--database", "postgres://127.0.0.1:1/none"]).output();
        // `--database` twice is a wrong command line.
        assert_eq!(said.unwrap().status.code(), Some(2));
        assert_eq!(plain(&["enqueue", DEVICE, "--database", "postgres://127.0.0.1:1/none"]).code, 69);
        assert_eq!(plain(&["enqueue", DEVICE, "--database", "sqlite:/nonexistent/queue.db"]).code, 78);
        assert_eq!(plain(&["enqueue", DEVICE, "--database", "mysql://x"]).code, 78);
    }
}
