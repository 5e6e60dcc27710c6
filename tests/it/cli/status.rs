//! `reprovisiond status`

use std::io::{BufRead as _, BufReader, Read as _};
use std::time::Duration;

use reprovisiond::domain::budget::Budget;
use reprovisiond::domain::completion::{Completion, CompletionState, Judgement};
use reprovisiond::domain::lifecycle::{BlockCode, Bucket, CallState, EntryEffect, TenantEffect, WaitCode};
use reprovisiond::domain::rate::Rate;
use reprovisiond::store::CompletionClaim;

use super::fill::{Filled, ends};
use super::program::{Program, check, plain};
use crate::support::on_both;

#[test]
fn help_begins_with_examples() {
    check!(plain(&["status", "--help"]), @r#"
    Examples:
      reprovisiond status
      reprovisiond status --watch                     again every [n s], until Ctrl-C
      reprovisiond status --output json | jq .needs
      reprovisiond status --watch --interval 1m --output ndjson >> status.ndjson

    The first line says whether anything needs you. Per tenant: requests that are ready, that wait for
    a time, whose call is under way (sending), that are in doubt (unknown) or wait for a person (held),
    and the final results by bucket. Where completion.track is on, also how many accepted reprovisions
    are being followed, and how the others ended.

    JSON is one document and NDJSON the same on one line; CSV has a line a tenant.

    Show what is pending and what holds

    Usage: reprovisiond status [OPTIONS]

    Options:
          --config <FILE>
              Configuration file [default: $REPROVISIOND_CONFIG, ./reprovisiond.toml,
              /etc/reprovisiond/reprovisiond.toml]

          --watch
              Show it again and again, until Ctrl-C

          --database <URL>
              Database, before the one in the configuration: sqlite:PATH or postgres://…

          --interval <DURATION>
              Time between two looks
              
              [default: 2s]

          --output <FORMAT>
              How results are written to stdout

              Possible values:
              - table:  A table for people
              - json:   One JSON document
              - ndjson: One JSON object a line
              - csv:    CSV with a header
              
              [default: table]

      -h, --help
              Print help (see a summary with '-h')
    "#);
}

#[test]
fn a_wrong_command_line_says_what_is_wrong() {
    check!(plain(&["status", "--interval", "5s"]), @r#"
    error: the following required arguments were not provided:
      --watch

    Usage: reprovisiond status --watch --interval <DURATION>

    For more information, try '--help'.
    [exit 2]
    "#);
    check!(plain(&["status", "--watch", "--interval", "0s"]), @r#"
    error: invalid value '0s' for '--interval <DURATION>': at least 1s: every look reads the whole queue

    For more information, try '--help'.
    [exit 2]
    "#);
    check!(plain(&["status", "--watch", "--output", "json"]), @r#"
    reprovisiond: --watch writes many documents: use --output ndjson, a document a line
    [exit 2]
    "#);
}

on_both! {
    async fn an_empty_queue_needs_nobody(scratch: Scratch) {
        let program = Program::new(&scratch).await;
        check!(program.run(&["status"]).await, @r#"
        Nothing needs you.

        tenant   ready  waiting  sending  unknown  held  oldest ready  next due
        contoso      0        0        0        0     0
        default      0        0        0        0     0

        results  successful  failed  not_found  not_supported  expired  cancelled  suppressed
        contoso           0       0          0              0        0          0           0
        default           0       0          0              0        0          0           0

        No worker is alive.
        "#);
        check!(program.run(&["status", "--output", "json"]).await, @r#"
        {
          "needs": [],
          "now": "[time]",
          "paused_devices": 0,
          "paused_requests": 0,
          "tenants": [
            {
              "tenant": "contoso",
              "ready": 0,
              "waiting": 0,
              "sending": 0,
              "unknown": 0,
              "held": 0,
              "oldest_ready_at": null,
              "next_due_at": null,
              "calls_in_doubt": 0,
              "paused_at": null,
              "paused_by": null,
              "pause_reason": null,
              "wait_until": null,
              "wait_reason": null,
              "blocked_at": null,
              "block_code": null,
              "block_reason": null,
              "probe_at": null,
              "cautious": false,
              "successful": 0,
              "failed": 0,
              "not_found": 0,
              "not_supported": 0,
              "expired": 0,
              "cancelled": 0,
              "suppressed": 0,
              "completion_followed": 0,
              "completion_done": 0,
              "completion_failed": 0,
              "completion_canceled": 0,
              "completion_not_supported": 0,
              "completion_untracked": 0
            },
            {
              "tenant": "default",
              "ready": 0,
              "waiting": 0,
              "sending": 0,
              "unknown": 0,
              "held": 0,
              "oldest_ready_at": null,
              "next_due_at": null,
              "calls_in_doubt": 0,
              "paused_at": null,
              "paused_by": null,
              "pause_reason": null,
              "wait_until": null,
              "wait_reason": null,
              "blocked_at": null,
              "block_code": null,
              "block_reason": null,
              "probe_at": null,
              "cautious": false,
              "successful": 0,
              "failed": 0,
              "not_found": 0,
              "not_supported": 0,
              "expired": 0,
              "cancelled": 0,
              "suppressed": 0,
              "completion_followed": 0,
              "completion_done": 0,
              "completion_failed": 0,
              "completion_canceled": 0,
              "completion_not_supported": 0,
              "completion_untracked": 0
            }
          ],
          "workers": []
        }
        "#);
        check!(program.run(&["status", "--output", "csv"]).await, @r#"
        now,tenant,ready,waiting,sending,unknown,held,oldest_ready_at,next_due_at,calls_in_doubt,paused_at,paused_by,pause_reason,wait_until,wait_reason,blocked_at,block_code,block_reason,probe_at,cautious,successful,failed,not_found,not_supported,expired,cancelled,suppressed,completion_followed,completion_done,completion_failed,completion_canceled,completion_not_supported,completion_untracked
        [time],contoso,0,0,0,0,0,,,0,,,,,,,,,,false,0,0,0,0,0,0,0,0,0,0,0,0,0
        [time],default,0,0,0,0,0,,,0,,,,,,,,,,false,0,0,0,0,0,0,0,0,0,0,0,0,0
        "#);
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
        filled.enqueue("contoso", 0..2).await;
        filled
            .call("contoso", CallState::Unknown, TenantEffect::Caution, |_| EntryEffect::Unknown { detail: "timed out".to_owned() })
            .await;
        filled.enqueue("default", 2..3).await;
        let block = TenantEffect::Block {
            code: BlockCode::Forbidden,
            reason: "Graph says 403: grant DeviceManagementManagedDevices.PrivilegedOperations.All\nforged".to_owned(),
            probe_after: Duration::from_mins(30),
        };
        filled.call("default", CallState::NotCarriedOut, block, |_| ends(Bucket::Failed, None)).await;
        let wait = TenantEffect::Wait { delay: Duration::from_secs(100), code: WaitCode::Throttled, reason: "Graph says 429".to_owned() };
        filled.store.defer_tenant(&"contoso".parse().unwrap(), &wait).await.unwrap();
        scratch.sqlite3_or_psql("UPDATE tenants SET paused_at = registered_at, paused_by = 'bob', pause_reason = 'change freeze' WHERE name = 'contoso'").await.unwrap();
        filled.store.close().await;
        check!(program.run(&["status"]).await, @r#"
        1 thing needs you: tenant default is blocked: Graph says 403: grant DeviceManagementManagedDevices.PrivilegedOperations.All\nforged; mend that, and have it probed at once with `systemctl restart reprovisiond`

        tenant   ready  waiting  sending  unknown  held  oldest ready  next due
        contoso      0        0        0        2     0
        default      0        0        0        0     0

        What holds:
          contoso: paused [n s] ago by bob: change freeze
          contoso: no call for another [n s]: Graph says 429
          contoso: 1 call in doubt; at limits.open_doubts of them, no further call is made until one is settled
          contoso: cautious after a doubt; one small call at a time until one is answered
          default: blocked [n s] ago: forbidden; one small call goes in 29 min to see whether it still is

        results  successful  failed  not_found  not_supported  expired  cancelled  suppressed
        contoso           0       0          0              0        0          0           0
        default           0       1          0              0        0          0           0

        worker                                host    version  started  heartbeat
        [call or worker id, 36 characters..]  host-a  0.1.0    [n s] ago  [n s] ago
        "#);
        let said = program.run(&["status", "--output", "ndjson"]).await;
        let document: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
        assert_eq!(document["needs"].as_array().unwrap().len(), 1, "{said}");
    }

    async fn what_became_of_accepted_reprovisions_is_shown_where_any_is_followed(scratch: Scratch) {
        let program = Program::new(&scratch).await;
        let filled = Filled::new(&scratch).await;
        let name = "default".parse().unwrap();
        filled.store.track_completions(std::slice::from_ref(&name), Some(Duration::ZERO)).await.unwrap();
        filled.enqueue("default", 1..4).await;
        filled.call("default", CallState::Answered, TenantEffect::None, |_| ends(Bucket::Successful, None)).await;
        let budget = Budget { rate: Rate { calls: 100, period: Duration::from_secs(1) } };
        let claim = CompletionClaim { tenant: &name, limit: 1, budget, put_off: Duration::ZERO };
        let watch = filled.store.claim_completions(&claim).await.unwrap().watches.remove(0);
        let failed = Completion {
            state: CompletionState::Failed,
            started_at: Some(watch.sent_at),
            ended_at: Some(watch.now),
            took_seconds: Some(1859),
            detail: Some("internalServerError: no luck".to_owned()),
            evidence: "{}".to_owned(),
        };
        filled.store.record_completions(&name, &[(watch, Judgement::Ended(failed))], None).await.unwrap();
        filled.store.close().await;
        let words = |said: &str| said.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
        let status = words(&program.run(&["status"]).await.stdout);
        assert!(status.contains("completion followed done failed canceled not_supported untracked default 2 0 1 0 0 0 worker"), "{status}");
        let results = program.run(&["results"]).await.stdout;
        assert!(words(&results).contains("bucket source completion took_seconds http_status call_id requested_by detail completion_detail reason"), "{results}");
        assert!(words(&results).contains("successful answer failed 1859 200") && words(&results).contains("internalServerError: no luck ticket 1"), "{results}");
        assert!(words(&results).contains("successful answer followed 200"), "{results}");
        let csv = program.run(&["results", "--output", "csv"]).await.stdout;
        assert!(csv.contains(",failed,") && csv.contains(",1859,internalServerError: no luck\n") && csv.contains(",followed,,,\n"), "{csv}");
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
