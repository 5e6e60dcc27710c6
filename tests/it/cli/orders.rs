//! `reprovisiond pause`, `resume`, `cancel`, `resolve`

use reprovisiond::domain::lifecycle::{Bucket, CallState, EntryEffect, TenantEffect};

use super::fill::{Filled, HOSTILE, device, ends};
use super::program::{Program, Said, check, plain};
use crate::support::on_both;

const COMMANDS: [&[&str]; 4] = [&["pause"], &["resume"], &["cancel"], &["resolve", "--as", "retry"]];

#[test]
fn help_begins_with_examples() {
    check!(plain(&["pause", "--help"]), @r#"
    Examples:
      reprovisiond pause --tenant contoso --by alice --reason 'change freeze'
      reprovisiond pause --all --by alice --reason 'Intune outage'
      reprovisiond pause --device 30d0e128-de93-41dc-89ec-33d84bb662a0 --by alice --reason 'VIP, travels
      today'
      reprovisiond pause --request 17 18 --by alice --reason 'asked to wait'

    It holds from the moment this command ends, for every worker: no further call is made for what is
    paused. Calls that were under way before are not affected; their number is shown. A pause of a
    device holds for its future requests too. What is paused can still expire.

    Exit code 1: a tenant or request is not known, or the request has ended. The others are paused.

    Hold requests back until they are resumed

    Usage: reprovisiond pause [OPTIONS] --by <NAME> --reason <TEXT> <--tenant <NAME>|--all|--device <DEVICE_ID>...|--request <REQUEST_ID>...>

    Options:
          --config <FILE>
              Configuration file [default: $REPROVISIOND_CONFIG, ./reprovisiond.toml,
              /etc/reprovisiond/reprovisiond.toml]

          --tenant <NAME>
              All of this tenant

          --all
              All of every tenant

          --database <URL>
              Database, before the one in the configuration: sqlite:PATH or postgres://…

          --device <DEVICE_ID>...
              These devices

          --output <FORMAT>
              How results are written to stdout

              Possible values:
              - table:  A table for people
              - json:   One JSON document
              - ndjson: One JSON object a line
              - csv:    CSV with a header
              
              [default: table]

          --request <REQUEST_ID>...
              The requests with these numbers

          --by <NAME>
              Who takes responsibility; kept for good

          --reason <TEXT>
              Why; kept for good

      -h, --help
              Print help (see a summary with '-h')
    "#);
    check!(plain(&["resolve", "--help"]), @r#"
    Examples:
      reprovisiond resolve --as successful --request 17 --by alice --reason 'Intune shows it at 10:04'
      reprovisiond resolve --as retry --device 30d0e128-de93-41dc-89ec-33d84bb662a0 --by alice --reason
      'not wiped'
      reprovisiond resolve --as failed --tenant contoso --by alice --reason 'owners asked to stop'

    The call of such a request may have been carried out. Find out first, at the device or in Intune:
      successful  it was: the request ends
      retry       it was not: the request is sent again, which wipes the Cloud PC
      failed      whatever it was, leave it: the request ends

    --request and --device take requests that are `unknown` or `held`; --tenant and --all take those
    that
    are `held`. The decision is recorded with your name.

    Exit code 1: something that was asked for is not in doubt. The others are resolved.

    Decide on requests in doubt

    Usage: reprovisiond resolve [OPTIONS] --as <DECISION> --by <NAME> --reason <TEXT> <--tenant <NAME>|--all|--device <DEVICE_ID>...|--request <REQUEST_ID>...>

    Options:
          --as <DECISION>
              How it ends
              
              [possible values: successful, retry, failed]

          --config <FILE>
              Configuration file [default: $REPROVISIOND_CONFIG, ./reprovisiond.toml,
              /etc/reprovisiond/reprovisiond.toml]

          --database <URL>
              Database, before the one in the configuration: sqlite:PATH or postgres://…

          --tenant <NAME>
              All of this tenant

          --all
              All of every tenant

          --output <FORMAT>
              How results are written to stdout

              Possible values:
              - table:  A table for people
              - json:   One JSON document
              - ndjson: One JSON object a line
              - csv:    CSV with a header
              
              [default: table]

          --device <DEVICE_ID>...
              These devices

          --request <REQUEST_ID>...
              The requests with these numbers

          --by <NAME>
              Who takes responsibility; kept for good

          --reason <TEXT>
              Why; kept for good

      -h, --help
              Print help (see a summary with '-h')
    "#);
    for command in COMMANDS {
        let said = plain(&[command[0], "--help"]);
        assert!(said.stdout.starts_with(&format!("Examples:\n  reprovisiond {} ", command[0])), "{said}");
    }
}

#[test]
fn an_order_without_exactly_one_scope_a_name_and_a_reason_is_a_wrong_command_line() {
    let by = ["--by", "ada", "--reason", "t"];
    for command in COMMANDS {
        for scope in [&[][..], &["--all", "--tenant", "default"], &["--request", "1", "--device", &device(1)]] {
            let said = plain(&[command, scope, &by].concat());
            assert!(said.code == 2 && said.stderr.contains("--tenant <NAME>"), "{said}");
        }
        for incomplete in [&["--by", "ada"][..], &["--reason", "t"]] {
            let said = plain(&[command, &["--all"], incomplete].concat());
            assert!(said.code == 2 && said.stderr.contains("required arguments were not provided"), "{said}");
        }
    }
    check!(plain(&["pause", "--all", "--by", " ", "--reason", "t"]), @r#"
    error: invalid value ' ' for '--by <NAME>': is empty: give the name of the person who decides

    For more information, try '--help'.
    [exit 2]
    "#);
    check!(plain(&["cancel", "--all", "--by", "ada", "--reason", ""]), @r#"
    error: invalid value '' for '--reason <TEXT>': is empty: give the reason, such as a ticket

    For more information, try '--help'.
    [exit 2]
    "#);
    let said = plain(&["cancel", "--all", "--by", "ada", "--reason", &"é".repeat(2001)]);
    assert!(said.code == 2 && said.stderr.contains("has 4002 bytes, and may have 4000"), "{said}");
    check!(plain(&["resolve", "--all", "--by", "ada", "--reason", "t"]), @r#"
    error: the following required arguments were not provided:
      --as <DECISION>

    Usage: reprovisiond resolve --as <DECISION> --by <NAME> --reason <TEXT> <--tenant <NAME>|--all|--device <DEVICE_ID>...|--request <REQUEST_ID>...>

    For more information, try '--help'.
    [exit 2]
    "#);
    check!(plain(&["resolve", "--as", "done", "--all", "--by", "ada", "--reason", "t"]), @r#"
    error: invalid value 'done' for '--as <DECISION>'
      [possible values: successful, retry, failed]

    For more information, try '--help'.
    [exit 2]
    "#);
}

impl Program<'_> {
    /// An order by Ada, for a hostile reason.
    async fn order(&self, args: &[&str]) -> Said {
        self.run(&[args, &["--by", "ada", "--reason", HOSTILE]].concat()).await
    }
}

/// Requests 1 to 3 of `default`: in doubt, held, ended; then 4, in a call, and 5, which waits.
async fn one_of_each(scratch: &crate::support::Scratch) {
    let filled = Filled::new(scratch).await;
    filled.enqueue("default", 0..3).await;
    let doubt = |n| match n {
        2 => ends(Bucket::Successful, None),
        _ => EntryEffect::Unknown { detail: "in no bucket".to_owned() },
    };
    filled.call("default", CallState::Answered, TenantEffect::None, doubt).await;
    filled.enqueue("default", 3..4).await;
    filled.send("default").await;
    filled.enqueue("default", 4..5).await;
    filled.store.close().await;
    scratch.sqlite3_or_psql("UPDATE reprovision_queue SET state = 'held' WHERE request_id = 2").await.unwrap();
}

on_both! {
    async fn pause_and_resume_say_what_is_held_back_and_what_is_not_affected(scratch: Scratch) {
        let program = Program::new(&scratch).await;
        one_of_each(&scratch).await;
        check!(program.order(&["pause", "--tenant", "default"]).await, @r#"
        tenant default: paused; 1 request held back; 1 under way already and not affected; 2 in doubt
        "#);
        check!(program.order(&["pause", "--all"]).await, @r#"
        tenant contoso: paused; 0 requests held back
        tenant default: was paused already; 1 request held back; 1 under way already and not affected; 2 in doubt (paused since [time] by ada: =cmd()|' /C calc'!A1\nforged line\u{1b}[2J)
        "#);
        check!(program.order(&["pause", "--device", &device(4), &device(9)]).await, @r#"
        device 30d0e128-de93-41dc-89ec-000000000004: paused; 1 request held back
        device 30d0e128-de93-41dc-89ec-000000000009: paused; 0 requests held back
        "#);
        check!(program.order(&["pause", "--request", "5", "3", "77"]).await, @r#"
        request 5: paused; 1 request held back
        reprovisiond: 2 things were refused:
          request 3: ended already, as successful
          request 77: there is none with this number
        [exit 1]
        "#);
        let said = program.run(&["status"]).await;
        for line in [
            "  default: paused 0 s ago by ada: =cmd()|' /C calc'!A1\\nforged line\\u{1b}[2J\n",
            "  2 devices and 1 request are paused\n",
            "`reprovisiond resolve --tenant default --as successful|retry|failed --by NAME --reason TEXT`",
        ] {
            assert!(said.stdout.replace(" 1 s ago", " 0 s ago").contains(line), "{line}: {said}");
        }
        let said = program.order(&["resume", "--all"]).await;
        assert!(said.stdout.contains("tenant default: resumed; 0 requests may go again; 1 under way already and not affected; 2 in doubt; 1 still held back by another pause (paused since"), "{said}");
        program.order(&["resume", "--device", &device(4)]).await;
        check!(program.order(&["resume", "--device", &device(4), "--output", "csv"]).await, @r#"
        action,outcome,scope,subject,requests,under_way,in_doubt,still_paused,request_id,managed_device_id,state,call_id,action_id,detail
        resume,done,device,30d0e128-de93-41dc-89ec-000000000004,0,0,0,1,,,,,8,device 30d0e128-de93-41dc-89ec-000000000004: was not paused; 0 requests may go; 1 still held back by another pause
        "#);
        check!(program.order(&["resume", "--tenant", "nobody", "--output", "json"]).await, @r#"
        [
        {"action":"resume","outcome":"refused","scope":"tenant","subject":"nobody","requests":0,"under_way":0,"in_doubt":0,"still_paused":0,"request_id":null,"managed_device_id":null,"state":null,"call_id":null,"action_id":null,"detail":"tenant nobody: not registered; `reprovisiond status` shows those that are"}
        ]
        reprovisiond: tenant nobody: not registered; `reprovisiond status` shows those that are
        [exit 1]
        "#);
    }

    async fn cancel_ends_what_was_not_sent_and_names_the_call_of_the_rest(scratch: Scratch) {
        let program = Program::new(&scratch).await;
        one_of_each(&scratch).await;
        check!(program.order(&["cancel", "--request", "1", "2", "3", "4", "5"]).await, @r#"
        request 5: 1 request cancelled
        reprovisiond: 4 things were refused:
          request 3: ended already, as successful
          request 1 (device 30d0e128-de93-41dc-89ec-000000000000): unknown, call [call or worker id, 36 characters..]; its call may have been carried out, so it cannot be cancelled: use `reprovisiond resolve --request 1`
          request 2 (device 30d0e128-de93-41dc-89ec-000000000001): held, call [call or worker id, 36 characters..]; its call may have been carried out, so it cannot be cancelled: use `reprovisiond resolve --request 2`
          request 4 (device 30d0e128-de93-41dc-89ec-000000000003): sending, call [call or worker id, 36 characters..]; its call is under way, so it cannot be cancelled
        [exit 1]
        "#);
        check!(program.order(&["cancel", "--tenant", "contoso"]).await, @r#"
        tenant contoso: 0 requests cancelled
        "#);
        let said = program.run(&["results", "--request", "5"]).await;
        assert!(said.stdout.contains("cancelled by ada: =cmd()|' /C calc'!A1\\nforged line\\u{1b}[2J"), "{said}");
        let said = program.order(&["cancel", "--tenant", "default", "--output", "ndjson"]).await;
        let rows: Vec<serde_json::Value> = said.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let seen: Vec<_> = rows.iter().map(|row| (&row["outcome"], &row["request_id"], &row["state"])).collect();
        assert_eq!(seen.len(), 4, "{said}");
        assert_eq!(seen[3], (&"refused".into(), &4.into(), &"sending".into()));
        assert_eq!(said.code, 1);
    }

    async fn resolve_decides_on_doubts_and_on_nothing_else(scratch: Scratch) {
        let program = Program::new(&scratch).await;
        one_of_each(&scratch).await;
        check!(program.order(&["resolve", "--as", "failed", "--tenant", "default"]).await, @r#"
        tenant default: 1 request resolved as failed
        "#);
        check!(program.order(&["resolve", "--as", "retry", "--device", &device(0)]).await, @r#"
        device 30d0e128-de93-41dc-89ec-000000000000: 1 request resolved as retry
        "#);
        check!(program.order(&["resolve", "--as", "successful", "--request", "2", "4", "5"]).await, @r#"
        reprovisiond: 3 things were refused:
          request 2: ended already, as failed
          request 4 (device 30d0e128-de93-41dc-89ec-000000000003): sending, call [call or worker id, 36 characters..]; it is not in doubt: its call is under way
          request 5 (device 30d0e128-de93-41dc-89ec-000000000004): queued; it is not in doubt: it waits to be sent, `reprovisiond cancel` ends it
        [exit 1]
        "#);
        let states = scratch.sqlite3_or_psql("SELECT request_id, state FROM request_status ORDER BY 1").await.unwrap();
        assert_eq!(states, "1|queued\n2|failed\n3|successful\n4|sending\n5|queued");
    }
}

#[test]
fn a_database_that_is_not_there_has_its_own_exit_code() {
    for command in COMMANDS {
        let to = ["--all", "--by", "ada", "--reason", "t", "--database", "sqlite:/nonexistent/queue.db"];
        let said = plain(&[command, &to].concat());
        assert_eq!(said.code, 78, "{said}");
    }
}
