//! `reprovisiond results`

use std::io::{BufRead as _, BufReader, Read as _};

use reprovisiond::domain::lifecycle::{Bucket, CallState, EntryEffect, TenantEffect};

use super::fill::{Filled, device, ends};
use super::program::{Program, check, plain};
use crate::support::{Scratch, on_both};

#[test]
fn help_begins_with_examples() {
    check!(plain(&["results", "--help"]), @"");
}

#[test]
fn a_wrong_filter_says_what_is_expected() {
    check!(plain(&["results", "--since", "yesterday"]), @"");
    check!(plain(&["results", "--bucket", "sucessful"]), @"");
    check!(plain(&["results", "--limit", "0"]), @"");
}

/// Three devices of `default`: one tried twice, one not found, one successful.
async fn three_results(scratch: &Scratch) {
    let filled = Filled::new(scratch).await;
    filled.enqueue("default", 3).await;
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
        check!(program.run(&["results"]).await, @"");
        check!(program.run(&["results", "--output", "json"]).await, @"");
        three_results(&scratch).await;
        check!(program.run(&["results"]).await, @"");
        check!(program.run(&["results", "--output", "json"]).await, @"");
        check!(program.run(&["results", "--output", "ndjson", "--all-attempts", "--device", &device(0)]).await, @"");
        check!(program.run(&["results", "--output", "csv"]).await, @"");
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

        check!(program.run(&["results", "--limit", "1"]).await, @"");
    }

    async fn more_than_a_page_streams_whole_and_a_closed_pipe_is_no_failure(scratch: Scratch) {
        let program = Program::new(&scratch).await;
        let filled = Filled::new(&scratch).await;
        filled.enqueue("default", 6001).await;
        filled.call("default", CallState::Answered, TenantEffect::None, |_| ends(Bucket::Successful, None)).await;
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
