//! `reprovisiond status`

use std::io::{BufRead as _, BufReader, Read as _};
use std::time::Duration;

use reprovisiond::domain::lifecycle::{Bucket, CallState, EntryEffect, TenantEffect};

use super::fill::{Filled, ends};
use super::program::{Program, check, plain};
use crate::support::on_both;

#[test]
fn help_begins_with_examples() {
    check!(plain(&["status", "--help"]), @"");
}

#[test]
fn a_wrong_command_line_says_what_is_wrong() {
    check!(plain(&["status", "--interval", "5s"]), @"");
    check!(plain(&["status", "--watch", "--interval", "0s"]), @"");
    check!(plain(&["status", "--watch", "--output", "json"]), @"");
}

on_both! {
    async fn an_empty_queue_needs_nobody(scratch: Scratch) {
        let program = Program::new(&scratch).await;
        check!(program.run(&["status"]).await, @"");
        check!(program.run(&["status", "--output", "json"]).await, @"");
        check!(program.run(&["status", "--output", "csv"]).await, @"");
    }

    async fn work_without_a_worker_needs_somebody(scratch: Scratch) {
        let program = Program::new(&scratch).await;
        program.run(&["enqueue", "30d0e128-de93-41dc-89ec-33d84bb662a0", "--not-before", "2099-01-01T00:00:00Z"]).await;
        let said = program.run(&["status"]).await;
        assert!(said.stdout.starts_with("1 thing needs you: no worker is alive and 1 request is pending: start `reprovisiond run`\n"), "{said}");
    }

    async fn whatever_holds_is_said(scratch: Scratch) {
        let program = Program::new(&scratch).await;
        let filled = Filled::new(&scratch).await;
        filled.enqueue("contoso", 2).await;
        filled
            .call("contoso", CallState::Unknown, TenantEffect::Caution, |_| EntryEffect::Unknown { detail: "timed out".to_owned() })
            .await;
        filled.enqueue("default", 1).await;
        let block = TenantEffect::Block {
            code: "forbidden",
            reason: "Graph says 403: grant DeviceManagementManagedDevices.PrivilegedOperations.All\nforged".to_owned(),
            probe_after: Duration::from_mins(30),
        };
        filled.call("default", CallState::NotCarriedOut, block, |_| ends(Bucket::Failed, None)).await;
        let wait = TenantEffect::Wait { delay: Duration::from_secs(100), code: "throttled", reason: "Graph says 429".to_owned() };
        filled.store.defer_tenant(&"contoso".parse().unwrap(), &wait).await.unwrap();
        scratch.sqlite3_or_psql("UPDATE tenants SET paused_at = registered_at, paused_by = 'bob', pause_reason = 'change freeze' WHERE name = 'contoso'").await.unwrap();
        filled.store.close().await;
        check!(program.run(&["status"]).await, @"");
        let said = program.run(&["status", "--output", "ndjson"]).await;
        let document: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
        assert_eq!(document["needs"].as_array().unwrap().len(), 1, "{said}");
    }

    async fn a_watch_appends_to_a_pipe_and_ends_with_it_or_by_ctrl_c(scratch: Scratch) {
        let program = Program::new(&scratch).await;
        let watch = || program.command(&["status", "--watch", "--interval", "1s", "--output", "ndjson"]).spawn().unwrap();

        let mut child = watch();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        lines.next().unwrap().unwrap();
        lines.next().unwrap().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0));

        let mut child = watch();
        drop(child.stdout.take());
        let mut complaint = String::new();
        child.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
        assert_eq!((child.wait().unwrap().code(), complaint.as_str()), (Some(0), ""));
    }

    async fn no_escape_sequence_goes_to_a_pipe(scratch: Scratch) {
        let program = Program::new(&scratch).await;
        for (name, value) in [("NO_COLOR", "1"), ("TERM", "xterm-256color")] {
            for args in [&["status"][..], &["results"], &["enqueue", "--help"], &["enqueue", "x"]] {
                let output = program.command(args).env(name, value).output().unwrap();
                assert!(!output.stdout.contains(&0x1b) && !output.stderr.contains(&0x1b), "{args:?}");
            }
        }
    }
}
