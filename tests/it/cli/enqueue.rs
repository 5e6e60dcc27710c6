//! `reprovisiond enqueue`

use super::fill::device;
use super::program::{Program, check, plain};
use crate::support::on_both;

const DEVICE: &str = "30d0e128-de93-41dc-89ec-33d84bb662a0";

#[test]
fn help_begins_with_examples() {
    check!(plain(&["enqueue", "--help"]), @r#"
    Examples:
      reprovisiond enqueue 30d0e128-de93-41dc-89ec-33d84bb662a0 --reason 'ticket 4711'
      reprovisiond enqueue --from devices.csv --tenant contoso --priority 10
      reprovisiond enqueue --from devices.csv --not-before [time]
      reprovisiond enqueue --from - --format ndjson < devices.ndjson

    A CSV file begins with a line of column names, in any order: managed_device_id, and, if wanted,
    tenant, requested_by, reason, external_id, priority, not_before, expires_at, force. Cells are parted
    by comma, semicolon or tab, whichever the first line has. NDJSON is one object a line with the same
    names as keys. An option gives the value for every row that has none of its own; an empty cell is
    none.

    It is all or nothing: every mistake is reported with its line, and while there is one, nothing is
    queued. An external_id is unique within its tenant, so that running the same file again queues
    nothing twice.

    Reprovisioning wipes a Cloud PC. A device that stands twice in one file is taken for a mistake,
    unless the two have different not_before.

    Ask for devices to be reprovisioned

    Usage: reprovisiond enqueue [OPTIONS] <DEVICE_ID|--from <FILE>>

    Arguments:
      [DEVICE_ID]...
              Intune managed device IDs

    Options:
          --config <FILE>
              Configuration file [default: $REPROVISIOND_CONFIG, ./reprovisiond.toml,
              /etc/reprovisiond/reprovisiond.toml]

          --from <FILE>
              Read the requests from this file; - is standard input

          --database <URL>
              Database, before the one in the configuration: sqlite:PATH or postgres://…

          --format <FORMAT>
              How the file is written [default: by its ending, .ndjson and .jsonl or CSV]

              Possible values:
              - csv:    Comma, semicolon or tab separated, with a header
              - ndjson: One JSON object a line

          --output <FORMAT>
              How results are written to stdout

              Possible values:
              - table:  A table for people
              - json:   One JSON document
              - ndjson: One JSON object a line
              - csv:    CSV with a header
              
              [default: table]

          --tenant <NAME>
              The tenant [default: default]

          --requested-by <WHO>
              Who asks; kept with every result [default: the login name and host, as in alice@admin01]

          --reason <TEXT>
              Why; kept with every result

          --external-id <ID>
              Your own reference, with one DEVICE_ID: a second request with it is not queued

          --priority <N>
              Higher goes first: -1000 to 1000 [default: 0]

          --not-before <TIME>
              Not before this time, RFC 3339

          --expires-at <TIME>
              Not after this time, RFC 3339

          --force
              Even if the device was reprovisioned within the cooldown

      -h, --help
              Print help (see a summary with '-h')
    "#);
}

#[test]
fn a_wrong_command_line_says_what_is_wrong() {
    check!(plain(&["enqueue"]), @r#"
    error: the following required arguments were not provided:
      <DEVICE_ID|--from <FILE>>

    Usage: reprovisiond enqueue <DEVICE_ID|--from <FILE>>

    For more information, try '--help'.
    [exit 2]
    "#);
    check!(plain(&["enqueue", DEVICE, "--priority", "1001", "--from", "x.csv"]), @r#"
    error: invalid value '1001' for '--priority <N>': expected a whole number from -1000 to 1000 (higher goes first)

    For more information, try '--help'.
    [exit 2]
    "#);
    check!(plain(&["enqueue", DEVICE, "--not-before", "tomorrow"]), @r#"
    error: invalid value 'tomorrow' for '--not-before <TIME>': expected a time with its offset, such as [time]

    For more information, try '--help'.
    [exit 2]
    "#);
    check!(plain(&["enqueue", DEVICE, DEVICE]), @r#"
    reprovisiond: nothing was queued, there is 1 mistake:
      DEVICE_ID 2: managed_device_id: 30d0e128-de93-41dc-89ec-33d84bb662a0 stands at place 1 too, and would be wiped twice: remove one, or give them different not_before
    [exit 2]
    "#);
    check!(plain(&["enqueue", DEVICE, "30d0e128-de93-41dc-89ec-33d84bb662a1", "--external-id", "x"]), @r#"
    reprovisiond: --external-id names one request: give one DEVICE_ID, or a file with a column external_id
    [exit 2]
    "#);
    check!(plain(&["enqueue", "--from", "nosuch.csv"]), @r#"
    reprovisiond: nosuch.csv: No such file or directory (os error 2)
    [exit 2]
    "#);
}

on_both! {
    async fn ids_on_the_command_line_are_queued_once_by_their_external_id(scratch: Scratch) {
        let program = Program::new(&scratch).await;
        let args = ["enqueue", "{30D0E128-DE93-41DC-89EC-33D84BB662A0}", "--external-id", "t-1", "--priority", "-5", "--reason", "why"];
        check!(program.run(&args).await, @r#"
        1 request queued
        "#);
        check!(program.run(&args).await, @r#"
        0 requests queued, 1 was there already (same external_id)
        "#);
        check!(program.run(&[&args[..], &["--output", "json"]].concat()).await, @r#"
        {"inserted":0,"already_there":1}
        "#);
        check!(program.run(&[&args[..], &["--output", "csv"]].concat()).await, @r#"
        inserted,already_there
        0,1
        "#);
        let row = scratch.sqlite3_or_psql("SELECT managed_device_id, tenant, reason, external_id, priority FROM reprovision_requests").await;
        assert_eq!(row.as_deref(), Ok("30d0e128-de93-41dc-89ec-33d84bb662a0|default|why|t-1|-5"));
        let by = scratch.sqlite3_or_psql("SELECT requested_by FROM reprovision_requests").await.unwrap();
        assert!(by.starts_with("tester@"), "{by}");
    }

    async fn csv_may_come_from_excel(scratch: Scratch) {
        let program = Program::new(&scratch).await;
        let csv = format!("\u{feff}reason;managed_device_id;force\r\n\"two\r\nlines; and \"\"quotes\"\"\";{};yes\r\n\r\n;{};\r\n", device(1), device(2));
        program.file("rows.csv", csv);
        check!(program.run(&["enqueue", "--from", "rows.csv", "--tenant", "contoso", "--requested-by", "bob"]).await, @r#"
        2 requests queued
        "#);
        let rows = scratch.sqlite3_or_psql("SELECT length(reason), tenant, requested_by, CASE WHEN force THEN 1 ELSE 0 END FROM reprovision_requests ORDER BY id").await;
        assert_eq!(rows.as_deref(), Ok("24|contoso|bob|1\n|contoso|bob|0"));
    }

    async fn ndjson_comes_from_standard_input(scratch: Scratch) {
        let program = Program::new(&scratch).await;
        let row = format!(r#"{{"managed_device_id":"{}","priority":7,"force":true,"expires_at":"2099-01-01T00:00:00+01:00","reason":null}}"#, device(1));
        check!(program.run_with_stdin(&["enqueue", "--from", "-", "--format", "ndjson"], &format!("{row}\n\n")).await, @r#"
        1 request queued
        "#);
        let wrong = "{\"device\":1}\n{\"priority\":\"x\"}\nfoo\n[]\n{\"reason\":[1],\"reason\":\"\"}\n";
        check!(program.run_with_stdin(&["enqueue", "--from", "-", "--format", "ndjson"], wrong).await, @r#"
        reprovisiond: nothing was queued, there are 6 mistakes:
          standard input:1: unknown key `device`: did you mean `managed_device_id`?
          standard input:2: managed_device_id: missing
          standard input:2: priority `x`: expected a whole number from -1000 to 1000 (higher goes first)
          standard input:3: not a JSON object, at column 2: expected ident
          standard input:4: not a JSON object: invalid type: sequence, expected a JSON object
          standard input:5: reason: expected one value, not a list or an object
        [exit 2]
        "#);
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
        check!(program.run(&["enqueue", "--from", "rows.csv"]).await, @r#"
        reprovisiond: nothing was queued, there are 13 mistakes:
          rows.csv:4: managed_device_id `hello\u{1b}[2J`: not an Intune managed device ID: expected a GUID such as 30d0e128-de93-41dc-89ec-33d84bb662a0, with or without braces
          rows.csv:4: tenant `Nope`: not a tenant name: use 1 to 64 of a-z, 0-9, '-' and '_', beginning with a letter or digit
          rows.csv:4: priority `1e3`: expected a whole number from -1000 to 1000 (higher goes first)
          rows.csv:4: not_before `never`: expected a time with its offset, such as [time]
          rows.csv:4: expires_at `2026-01-01`: expected a time with its offset, such as [time]
          rows.csv:4: force `maybe`: expected true or false
          rows.csv:5: external_id `xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…`: has 257 bytes, and may have 256
          rows.csv:5: expires_at: must lie after not_before, which is [time]
          rows.csv:6: managed_device_id `00000000-0000-0000-0000-000000000000`: the GUID of zeros is no device: give the managed device ID that Intune shows
          rows.csv:6: external_id `a\u{0}b`: has a NUL character, which no database here keeps
          rows.csv:7: has 6 cells where the first line has 7
          rows.csv:9: external_id: `e` stands at line 8 with other content, and only one of the two would be queued
          rows.csv:11: managed_device_id: 30d0e128-de93-41dc-89ec-000000000001 stands at line 2 too, and would be wiped twice: remove one, or give them different not_before
        [exit 2]
        "#);
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
        check!(header("ManagedDeviceId,Reasn,zzz,reason,reason\nx\n").await, @r#"
        reprovisiond: nothing was queued, there are 4 mistakes:
          standard input:1: unknown column `ManagedDeviceId`: did you mean `managed_device_id`?
          standard input:1: unknown column `Reasn`: did you mean `reason`?
          standard input:1: unknown column `zzz`: known are managed_device_id, tenant, requested_by, reason, external_id, priority, not_before, expires_at, force
          standard input:1: column `reason` stands twice
        [exit 2]
        "#);
        check!(header(DEVICE).await, @r#"
        reprovisiond: nothing was queued, there is 1 mistake:
          standard input:1: the first line has a device ID where column names belong: put a line `managed_device_id` above it
        [exit 2]
        "#);
        check!(header("").await, @r#"
        reprovisiond: nothing was queued, there is 1 mistake:
          standard input:1: there is nothing in it: the first line names the columns, such as `managed_device_id,reason`
        [exit 2]
        "#);
        check!(header("managed_device_id\n").await, @r#"
        reprovisiond: standard input: no requests in it
        [exit 2]
        "#);
        check!(header("PK\u{3}\u{4}").await, @r#"
        reprovisiond: nothing was queued, there is 1 mistake:
          standard input:1: the file is a workbook or an archive: save it as CSV UTF-8
        [exit 2]
        "#);
        check!(header(&format!("managed_device_id,reason\n{DEVICE},\"never closed\n{DEVICE},b\n")).await, @r#"
        reprovisiond: nothing was queued, there is 1 mistake:
          standard input:2: a quotation mark is never closed, here or above: close it, and write one within a cell twice, the cell in quotation marks
        [exit 2]
        "#);
    }

    async fn an_unknown_tenant_is_named_with_its_line(scratch: Scratch) {
        let program = Program::new(&scratch).await;
        program.file("rows.csv", format!("managed_device_id,tenant\n{},\n{},contosso\n{},zzz\n", device(1), device(2), device(3)));
        check!(program.run(&["enqueue", "--from", "rows.csv"]).await, @r#"
        reprovisiond: nothing was queued, there are 2 mistakes:
          rows.csv:3: tenant: `contosso` is not a configured tenant: did you mean `contoso`? (to add it: [tenants.contosso] in the configuration, then `reprovisiond migrate`)
          rows.csv:4: tenant: `zzz` is not a configured tenant: known are contoso, default (to add it: [tenants.zzz] in the configuration, then `reprovisiond migrate`)
        [exit 2]
        "#);
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
        check!(program.run(&["enqueue", "--from", "good.csv"]).await, @r#"
        20001 requests queued
        "#);
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
