//! Several daemons on one database: the work is shared, what holds for a tenant holds for all of them, and what a stopped one
//! had in hand is not sent late.

use std::time::Duration;

use chrono::TimeDelta;
use reprovisiond::simulator::{ActionRequest, FaultScript, Options, Simulator};
use rustix::process::Signal;

use crate::support::{Backend, Daemon, SETTLES, Scratch, calm, judge, nothing_left_late, on_both};

/// Small calls, one at a time in each process.
fn small_calls(more: &str) -> String {
    format!("[batch]\nmax_devices = 5\n{SETTLES}max_calls_in_flight = 1\n{more}")
}

/// The shortest lease there is.
const SHORT_LEASE: &str = "lease = \"2s\"\n";

/// `[worker] send_within` of [`SETTLES`].
const SEND_WITHIN: TimeDelta = TimeDelta::milliseconds(400);

async fn start(scratch: &Scratch, simulator: &Simulator, workers: usize, settings: &str) -> Vec<Daemon> {
    let mut daemons = vec![Daemon::start(scratch, simulator, settings).await];
    while daemons.len() < workers {
        daemons.push(daemons[0].beside(simulator).await);
    }
    daemons
}

/// Ends them all, and judges what they did together.
async fn finish(mut daemons: Vec<Daemon>, scratch: &Scratch, simulator: &Simulator, run: &str) {
    daemons[0].until_all_ended(scratch).await;
    for daemon in &mut daemons {
        assert_eq!(daemon.stop().await.code(), Some(0), "{run}\n{}", daemon.log().join("\n"));
    }
    judge(scratch, simulator, run).await;
}

async fn share(scratch: &Scratch, workers: usize) {
    let simulator = Simulator::start(Options { latency: Duration::from_millis(40), ..calm() }).unwrap();
    let daemons = start(scratch, &simulator, workers, &small_calls("")).await;
    scratch.request(&simulator, 200).await;
    finish(daemons, scratch, &simulator, "sharing").await;
    assert_eq!(simulator.ledger().len(), 200);
    assert_eq!(scratch.rows("SELECT count(DISTINCT worker) FROM graph_calls").await, workers.to_string());
}

async fn wait_together(scratch: &Scratch, workers: usize) {
    let faults: FaultScript = "429:4@3,503:4@12".parse().unwrap();
    let simulator = Simulator::start(Options { latency: Duration::from_millis(100), faults, ..calm() }).unwrap();
    let daemons = start(scratch, &simulator, workers, &small_calls("")).await;
    scratch.request(&simulator, 100).await;
    finish(daemons, scratch, &simulator, "waiting").await;

    let requests = simulator.requests();
    let refusals: Vec<_> = requests.iter().filter(|request| request.retry_after.is_some()).collect();
    assert_eq!(refusals.len(), 2);
    for refusal in refusals {
        let told = refusal.answered_at.unwrap();
        // The others know of it once it is committed, which on SQLite means: once it is the writer's turn. Until then they may
        // make an intent; two seconds are a bound for that, not a measure of it.
        let (from, to) = (told + TimeDelta::seconds(2), told + TimeDelta::seconds(4));
        let early: Vec<_> = requests.iter().filter(|request| request.at > from && request.at < to).collect();
        assert_eq!(early, Vec::<&ActionRequest>::new(), "told at {told} to wait four seconds");
    }
}

on_both! {
    async fn two_workers_share_the_work_and_wipe_each_device_once(scratch: Scratch) {
        share(&scratch, 2).await;
    }

    async fn five_workers_share_the_work_and_wipe_each_device_once(scratch: Scratch) {
        share(&scratch, 5).await;
    }

    async fn two_workers_wait_when_one_of_them_is_told_to(scratch: Scratch) {
        wait_together(&scratch, 2).await;
    }

    async fn five_workers_wait_when_one_of_them_is_told_to(scratch: Scratch) {
        wait_together(&scratch, 5).await;
    }

    async fn a_worker_stopped_after_its_intent_and_continued_once_the_call_is_given_up_sends_nothing(scratch: Scratch) {
        stopped_before_sending("after-intent", IN_DOUBT, "1", &scratch).await;
    }

    async fn a_worker_stopped_after_its_intent_and_continued_when_others_have_done_its_work_sends_nothing(scratch: Scratch) {
        stopped_before_sending("after-intent", PENDING, "0", &scratch).await;
    }

    async fn a_worker_stopped_on_an_open_connection_and_continued_once_the_call_is_given_up_sends_nothing(scratch: Scratch) {
        stopped_before_sending("before-check", IN_DOUBT, "1", &scratch).await;
    }

    async fn a_worker_stopped_on_an_open_connection_and_continued_when_others_have_done_its_work_sends_nothing(scratch: Scratch) {
        stopped_before_sending("before-check", PENDING, "0", &scratch).await;
    }

    // What nothing on this side can prevent: between the last check and the write there is always a moment. The settling time
    // is there for it.
    async fn a_worker_stopped_after_its_last_check_and_continued_within_the_settling_time_wipes_nothing_twice(scratch: Scratch) {
        let simulator = Simulator::start(calm()).unwrap();
        let settings = small_calls(SHORT_LEASE).replace("settle_after = \"1s\"", "settle_after = \"5s\"");
        let (stopped, other) = stopped_at("before-write", &simulator, &scratch, &settings).await;
        other.until_rows(&scratch, IN_DOUBT, "1").await;
        stopped.signal(Signal::CONT);
        // Late, or anew once it has been given up: its own time-out may have ended it before the write.
        other.until("its devices are sent", async || simulator.requests().len() >= 3).await;
        finish(vec![stopped, other], &scratch, &simulator, "stopped at before-write").await;
        assert_eq!(simulator.ledger().len(), 12);
    }

    async fn an_answer_that_a_stopped_worker_finds_when_it_goes_on_settles_its_doubt(scratch: Scratch) {
        let simulator = stopped_before_its_answer(&scratch, "8s", IN_DOUBT, "1").await;
        assert_eq!(scratch.rows(FINALS).await, "answer|successful|5");
        assert_eq!(simulator.ledger().len(), 5);
    }

    async fn an_answer_that_a_stopped_worker_finds_after_its_doubt_was_settled_is_kept_and_changes_nothing(scratch: Scratch) {
        let simulator = stopped_before_its_answer(&scratch, "100ms", PENDING, "0").await;
        assert_eq!(scratch.rows(FINALS).await, "read_back|successful|5");
        assert_eq!(simulator.ledger().len(), 5);
    }
}

// Not on SQLite: a process that is stopped in the middle of a transaction keeps the file's lock until it goes on. Postgres ends
// its session after a while (`idle_in_transaction_session_timeout`) and the others go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_five_workers_stopped_in_the_middle_of_their_work_and_continued_send_nothing_late() {
    let scratch = Scratch::new(Backend::Postgres).await;
    let simulator = Simulator::start(Options { latency: Duration::from_millis(60), ..calm() }).unwrap();
    let daemons = start(&scratch, &simulator, 5, &small_calls(SHORT_LEASE)).await;
    scratch.request(&simulator, 200).await;
    daemons[0].until("the work is under way", async || simulator.ledger().len() > 30).await;
    daemons[1].signal(Signal::STOP);
    daemons[3].signal(Signal::STOP);
    daemons[0].until_all_ended(&scratch).await;
    daemons[1].signal(Signal::CONT);
    daemons[3].signal(Signal::CONT);
    // The next work is shared by all of them again.
    scratch.request_after(&simulator, 200, 50).await;
    let run = "two of five stopped";
    finish(daemons, &scratch, &simulator, run).await;
    assert_eq!(simulator.ledger().len(), 250);
    nothing_left_late(&scratch, &simulator, SEND_WITHIN, run).await;
}

const IN_DOUBT: &str = "SELECT count(*) FROM graph_calls WHERE state = 'unknown'";
const PENDING: &str = "SELECT count(*) FROM reprovision_queue";
const FINALS: &str = "SELECT source, bucket, count(*) FROM device_results WHERE final GROUP BY 1, 2";

/// A worker with a call in hand that has stopped at `boundary`, and another beside it.
async fn stopped_at(boundary: &str, simulator: &Simulator, scratch: &Scratch, settings: &str) -> (Daemon, Daemon) {
    let mut stopped = Daemon::migrated(&scratch.url, simulator, settings).await;
    scratch.request(simulator, 12).await;
    stopped.launch(simulator, &format!("{boundary}=1*return(stop)"));
    stopped.until(&format!("it stops at {boundary}"), async || stopped.is_stopped()).await;
    let other = stopped.beside(simulator).await;
    (stopped, other)
}

/// Continues it when `sql` gives `rows`.
async fn stopped_before_sending(boundary: &str, sql: &str, rows: &str, scratch: &Scratch) {
    let simulator = Simulator::start(calm()).unwrap();
    let (stopped, other) = stopped_at(boundary, &simulator, scratch, &small_calls(SHORT_LEASE)).await;
    let call = scratch.rows("SELECT id FROM graph_calls ORDER BY sent_at LIMIT 1").await;
    other.until_rows(scratch, sql, rows).await;
    stopped.signal(Signal::CONT);
    // Its own word, that it never sent, completes the call that the other had given up.
    other.until_rows(scratch, &format!("SELECT state FROM graph_calls WHERE id = '{call}'"), "not_sent").await;
    let run = format!("stopped at {boundary}");
    finish(vec![stopped, other], scratch, &simulator, &run).await;
    assert_eq!(simulator.ledger().len(), 12, "{run}");
    let sent = simulator.requests().into_iter().find(|request| {
        request.client_request_id.as_deref() == Some(call.as_str()) && !request.managed_device_ids.is_empty()
    });
    assert_eq!(sent, None, "{run}");
    nothing_left_late(scratch, &simulator, SEND_WITHIN, &run).await;
}

/// A worker whose call is carried out and answered late is stopped before the answer, and continued when `sql` gives `rows`.
async fn stopped_before_its_answer(scratch: &Scratch, first_after: &str, sql: &str, rows: &str) -> Simulator {
    let simulator = Simulator::start(Options { faults: "latency:1s@1".parse().unwrap(), ..calm() }).unwrap();
    let settings = format!(
        "[graph]\ncall_timeout = \"20s\"\n[reconcile]\nfirst_after = \"{first_after}\"\nsettle_after = \"30s\"\n\
         [worker]\nsend_within = \"400ms\"\n{SHORT_LEASE}"
    );
    let stopped = Daemon::start(scratch, &simulator, &settings).await;
    scratch.request(&simulator, 5).await;
    stopped.until("the call is carried out", async || simulator.ledger().len() == 5).await;
    stopped.signal(Signal::STOP);
    let other = stopped.beside(&simulator).await;
    other.until_rows(scratch, sql, rows).await;
    stopped.signal(Signal::CONT);
    other.until_rows(scratch, "SELECT state, http_status FROM graph_calls", "answered|200").await;
    let run = "stopped before its answer";
    finish(vec![stopped, other], scratch, &simulator, run).await;
    simulator
}
