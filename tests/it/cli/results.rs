//! `reprovisiond results`

use std::io::{BufRead as _, BufReader, Read as _};

use reprovisiond::domain::lifecycle::{Bucket, CallState, EntryEffect, TenantEffect};
use reprovisiond::domain::read_back::{ReadBack, ReconcilePolicy, settle};

use super::fill::{Filled, device, ends};
use super::program::{Program, check, plain};
use crate::support::{Scratch, on_both};

#[test]
fn help_begins_with_examples() {
    check!(plain(&["results", "--help"]), @r#"
    Examples:
      reprovisiond results                                           the last 100, as a table
      reprovisiond results --since 24h --bucket failed
      reprovisiond results --device 30d0e128-de93-41dc-89ec-33d84bb662a0 --all-attempts
      reprovisiond results --output csv > results.csv                all of them
      reprovisiond results --tenant contoso --since [time] --output ndjson

    The oldest comes first. A result is the final one of its request; --all-attempts also shows the
    attempts before it, what was read back of a doubt, and an answer that came too late. What a
    settlement
    stands on is in the column evidence, as JSON; a table has it with --request. Where completion.track
    is on, completion says how far an accepted reprovision has come: followed, done, failed, canceled,
    not_supported, or untracked where its end was not shown. For a question to Microsoft's support,
    call_id is what was sent as
    client-request-id and graph_request_id is Graph's own.

    JSON and CSV have the columns of the database. In CSV, a text that begins with = + - @ TAB or CR has
    an apostrophe put before it, so that no spreadsheet runs it as a formula; JSON has every text as it
    is. A table shows control characters as escapes and cuts long texts.

    Show what came of the requests

    Usage: reprovisiond results [OPTIONS]

    Options:
          --config <FILE>
              Configuration file [default: $REPROVISIOND_CONFIG, ./reprovisiond.toml,
              /etc/reprovisiond/reprovisiond.toml]

          --tenant <NAME>
              Of this tenant

          --database <URL>
              Database, before the one in the configuration: sqlite:PATH or postgres://…

          --device <DEVICE_ID>
              Of this device

          --output <FORMAT>
              How results are written to stdout

              Possible values:
              - table:  A table for people
              - json:   One JSON document
              - ndjson: One JSON object a line
              - csv:    CSV with a header
              
              [default: table]

          --request <REQUEST_ID>
              Of the request with this number

          --call <CALL_ID>
              Of the call to Graph with this ID

          --bucket <BUCKET>
              In this bucket
              
              [possible values: successful, failed, not_found, not_supported, expired, cancelled,
              suppressed, unknown]

          --since <TIME>
              Recorded at or after this time: RFC 3339, or how long ago, such as 2h or 7d

          --until <TIME>
              Recorded before this time, written as --since is

          --all-attempts
              Every attempt, not only final results

          --limit <N>
              The newest N only [default: 100 in a table, all in the other formats]

      -h, --help
              Print help (see a summary with '-h')
    "#);
}

#[test]
fn a_wrong_filter_says_what_is_expected() {
    check!(plain(&["results", "--since", "yesterday"]), @r#"
    error: invalid value 'yesterday' for '--since <TIME>': not a time: write UTC such as [time], or how long ago, such as 15m, 2h or 7d

    For more information, try '--help'.
    [exit 2]
    "#);
    check!(plain(&["results", "--bucket", "sucessful"]), @r#"
    error: invalid value 'sucessful' for '--bucket <BUCKET>'
      [possible values: successful, failed, not_found, not_supported, expired, cancelled, suppressed, unknown]

      tip: a similar value exists: 'successful'

    For more information, try '--help'.
    [exit 2]
    "#);
    check!(plain(&["results", "--limit", "0"]), @r#"
    error: invalid value '0' for '--limit <N>': 0 is not in 1..=4294967295

    For more information, try '--help'.
    [exit 2]
    "#);
}

/// Three devices of `default`: one tried twice, one not found, one successful.
async fn three_results(scratch: &Scratch) {
    let filled = Filled::new(scratch).await;
    filled.enqueue("default", 0..3).await;
    filled
        .call("default", CallState::Answered, TenantEffect::None, |n| match n {
            0 => EntryEffect::TryAgain {
                detail: Some("in failedDeviceIds".to_owned()),
                delay: std::time::Duration::ZERO,
            },
            1 => ends(Bucket::NotFound, None),
            _ => ends(Bucket::Successful, None),
        })
        .await;
    filled.call("default", CallState::Answered, TenantEffect::None, |_| ends(Bucket::Failed, Some("-1 too"))).await;
    filled.store.close().await;
}

on_both! {
    async fn every_format_shows_the_same_rows_and_no_hostile_text_gets_out(scratch: Scratch) {
        let program = Program::new(&scratch).await;
        check!(program.run(&["results"]).await, @r#"
        No results.
        "#);
        check!(program.run(&["results", "--output", "json"]).await, @r#"
        []
        "#);
        three_results(&scratch).await;
        check!(program.run(&["results"]).await, @r#"
        recorded_at           request_id  tenant   managed_device_id                     attempt  bucket      source  http_status  call_id                               requested_by   detail  reason
        [time]           2  default  30d0e128-de93-41dc-89ec-000000000001        1  not_found   answer          200  [call or worker id, 36 characters..]  alice@admin01          ticket 1
        [time]           3  default  30d0e128-de93-41dc-89ec-000000000002        1  successful  answer          200  [call or worker id, 36 characters..]  alice@admin01          ticket 2
        [time]           1  default  30d0e128-de93-41dc-89ec-000000000000        2  failed      answer          200  [call or worker id, 36 characters..]  alice@admin01  -1 too  =cmd()|' /C calc'!A1\nforged line\u{1b}[2J
        "#);
        check!(program.run(&["results", "--output", "json"]).await, @r#"
        [
        {"id":2,"request_id":2,"tenant":"default","managed_device_id":"30d0e128-de93-41dc-89ec-000000000001","attempt":1,"bucket":"not_found","source":"answer","final":true,"detail":null,"requested_by":"alice@admin01","reason":"ticket 1","recorded_at":"[time]","call_id":"[call or worker id, 36 characters..]","sent_at":"[time]","http_status":200,"graph_request_id":"graph-1","evidence":null,"completion":null,"completed_at":null,"took_seconds":null,"completion_detail":null},
        {"id":3,"request_id":3,"tenant":"default","managed_device_id":"30d0e128-de93-41dc-89ec-000000000002","attempt":1,"bucket":"successful","source":"answer","final":true,"detail":null,"requested_by":"alice@admin01","reason":"ticket 2","recorded_at":"[time]","call_id":"[call or worker id, 36 characters..]","sent_at":"[time]","http_status":200,"graph_request_id":"graph-1","evidence":null,"completion":null,"completed_at":null,"took_seconds":null,"completion_detail":null},
        {"id":4,"request_id":1,"tenant":"default","managed_device_id":"30d0e128-de93-41dc-89ec-000000000000","attempt":2,"bucket":"failed","source":"answer","final":true,"detail":"-1 too","requested_by":"alice@admin01","reason":"=cmd()|' /C calc'!A1\nforged line\u001b[2J","recorded_at":"[time]","call_id":"[call or worker id, 36 characters..]","sent_at":"[time]","http_status":200,"graph_request_id":"graph-1","evidence":null,"completion":null,"completed_at":null,"took_seconds":null,"completion_detail":null}
        ]
        "#);
        check!(program.run(&["results", "--output", "ndjson", "--all-attempts", "--device", &device(0)]).await, @r#"
        {"id":1,"request_id":1,"tenant":"default","managed_device_id":"30d0e128-de93-41dc-89ec-000000000000","attempt":1,"bucket":"failed","source":"answer","final":false,"detail":"in failedDeviceIds","requested_by":"alice@admin01","reason":"=cmd()|' /C calc'!A1\nforged line\u001b[2J","recorded_at":"[time]","call_id":"[call or worker id, 36 characters..]","sent_at":"[time]","http_status":200,"graph_request_id":"graph-1","evidence":null,"completion":null,"completed_at":null,"took_seconds":null,"completion_detail":null}
        {"id":4,"request_id":1,"tenant":"default","managed_device_id":"30d0e128-de93-41dc-89ec-000000000000","attempt":2,"bucket":"failed","source":"answer","final":true,"detail":"-1 too","requested_by":"alice@admin01","reason":"=cmd()|' /C calc'!A1\nforged line\u001b[2J","recorded_at":"[time]","call_id":"[call or worker id, 36 characters..]","sent_at":"[time]","http_status":200,"graph_request_id":"graph-1","evidence":null,"completion":null,"completed_at":null,"took_seconds":null,"completion_detail":null}
        "#);
        check!(program.run(&["results", "--output", "csv"]).await, @r#"
        id,request_id,tenant,managed_device_id,attempt,bucket,source,final,detail,requested_by,reason,recorded_at,call_id,sent_at,http_status,graph_request_id,evidence,completion,completed_at,took_seconds,completion_detail
        2,2,default,30d0e128-de93-41dc-89ec-000000000001,1,not_found,answer,true,,alice@admin01,ticket 1,[time],[call or worker id, 36 characters..],[time],200,graph-1,,,,,
        3,3,default,30d0e128-de93-41dc-89ec-000000000002,1,successful,answer,true,,alice@admin01,ticket 2,[time],[call or worker id, 36 characters..],[time],200,graph-1,,,,,
        4,1,default,30d0e128-de93-41dc-89ec-000000000000,2,failed,answer,true,'-1 too,alice@admin01,"'=cmd()|' /C calc'!A1
        forged line[2J",[time],[call or worker id, 36 characters..],[time],200,graph-1,,,,,
        "#);
    }

    async fn the_evidence_of_a_settlement_is_in_every_row_and_in_the_table_of_one_request(scratch: Scratch) {
        let program = Program::new(&scratch).await;
        let filled = Filled::new(&scratch).await;
        filled.enqueue("default", 1..2).await;
        let doubt = |_| EntryEffect::Unknown { detail: "timed out".to_owned() };
        filled.call("default", CallState::Unknown, TenantEffect::None, doubt).await;
        let soon = std::time::Duration::ZERO;
        let policy = ReconcilePolicy { first_after: soon, settle_after: soon, give_up_after: soon, clock_margin: soon, max_attempts: 3 };
        let doubt = filled.store.doubts(&"default".parse().unwrap(), &policy, 1).await.unwrap().remove(0);
        let seen = ReadBack::Failed { reason: "HTTP 403".to_owned(), retry_after: None };
        let settlement = settle(&doubt, &seen, &policy);
        filled.store.settle(&[(doubt, settlement)]).await.unwrap();
        filled.store.close().await;
        let said = program.run(&["results", "--all-attempts", "--output", "csv"]).await;
        assert!(said.stdout.ends_with(",\"{\"\"failed\"\":\"\"HTTP 403\"\"}\",,,,\n"), "{said}");
        let said = program.run(&["results", "--all-attempts"]).await;
        assert!(!said.stdout.contains("evidence"), "{said}");
        check!(program.run(&["results", "--all-attempts", "--request", "1"]).await, @r#"
        recorded_at           request_id  tenant   managed_device_id                     attempt  bucket   source     http_status  call_id                               requested_by   detail                                reason    evidence
        [time]           1  default  30d0e128-de93-41dc-89ec-000000000001        1  unknown  answer             200  [call or worker id, 36 characters..]  alice@admin01  timed out                             ticket 1
        [time]           1  default  30d0e128-de93-41dc-89ec-000000000001        1  unknown  read_back          200  [call or worker id, 36 characters..]  alice@admin01  nothing could be read back: HTTP 403  ticket 1  {"failed":"HTTP 403"}
        "#);
    }

    async fn filters_narrow_and_a_limit_keeps_the_newest(scratch: Scratch) {
        let program = Program::new(&scratch).await;
        three_results(&scratch).await;
        let ids = async |args: &[&str]| {
            let said = program.run(&[&["results", "--output", "csv"], args].concat()).await;
            assert_eq!(said.code, 0, "{said}");
            let ids = |line: &str| line.split(',').nth(1).and_then(|id| id.parse::<i64>().ok());
            said.stdout.lines().filter_map(ids).collect::<Vec<_>>()
        };
        assert_eq!(ids(&[]).await, [2, 3, 1]);
        assert_eq!(ids(&["--all-attempts"]).await, [1, 2, 3, 1]);
        assert_eq!(ids(&["--limit", "2"]).await, [3, 1]);
        assert_eq!(ids(&["--limit", "1", "--device", &device(0), "--all-attempts"]).await, [1]);
        assert_eq!(ids(&["--bucket", "not_found"]).await, [2]);
        assert_eq!(ids(&["--device", &device(2)]).await, [3]);
        assert_eq!(ids(&["--request", "1"]).await, [1]);
        assert_eq!(ids(&["--tenant", "contoso"]).await, Vec::<i64>::new());
        assert_eq!(ids(&["--since", "1h"]).await, [2, 3, 1]);
        assert_eq!(ids(&["--until", "1h"]).await, Vec::<i64>::new());
        assert_eq!(ids(&["--since", "2099-01-01T00:00:00Z"]).await, Vec::<i64>::new());
        let call = scratch.sqlite3_or_psql("SELECT call_id FROM device_results WHERE bucket = 'not_found'").await.unwrap();
        assert_eq!(ids(&["--call", &call]).await, [2, 3]);

        check!(program.run(&["results", "--limit", "1"]).await, @r#"
        recorded_at           request_id  tenant   managed_device_id                     attempt  bucket  source  http_status  call_id                               requested_by   detail  reason
        [time]           1  default  30d0e128-de93-41dc-89ec-000000000000        2  failed  answer          200  [call or worker id, 36 characters..]  alice@admin01  -1 too  =cmd()|' /C calc'!A1\nforged line\u{1b}[2J

        The last 1; there are more before them: --limit N shows more, --output csv shows all.
        "#);
    }

    async fn more_than_a_page_streams_whole_and_a_closed_pipe_is_no_failure(scratch: Scratch) {
        let program = Program::new(&scratch).await;
        let filled = Filled::new(&scratch).await;
        filled.enqueue("default", 0..6001).await;
        for _ in 0..6001_usize.div_ceil(500) {
            filled.call("default", CallState::Answered, TenantEffect::None, |_| ends(Bucket::Successful, None)).await;
        }
        filled.store.close().await;

        let said = program.run(&["results", "--output", "ndjson"]).await;
        assert_eq!((said.code, said.stdout.lines().count()), (0, 6001));
        let said = program.run(&["results", "--output", "json", "--limit", "5500"]).await;
        let rows: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
        assert_eq!(rows.as_array().unwrap().len(), 5500);
        assert_eq!(rows[5499]["request_id"], 6001);
        let said = program.run(&["results"]).await;
        assert!(said.stdout.contains("The last 100; there are more"), "{said}");

        for format in ["table", "json", "ndjson", "csv"] {
            let mut child = program.command(&["results", "--limit", "6000", "--output", format]).spawn().unwrap();
            let mut line = String::new();
            BufReader::with_capacity(100, child.stdout.take().unwrap()).read_line(&mut line).unwrap();
            assert!(!line.is_empty());
            let mut complaint = String::new();
            child.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
            assert_eq!((child.wait().unwrap().code(), complaint.as_str()), (Some(0), ""), "{format}");
        }
    }
}
