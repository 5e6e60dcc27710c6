//! The process ends at every boundary of its work, once and again and again, and the next one makes good what it left.

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use reprovisiond::simulator::{Options, Simulator};
use rustix::process::Signal;

use crate::support::{Daemon, SETTLES, Scratch, calm, judge, on_both};

/// How often a persistent failpoint ends the process before one without it is started.
const LIVES: usize = 5;

/// Two tests on each database for each boundary. `$faults` and `$latency` (in milliseconds) make Graph such that the boundary
/// is reached, in every life.
macro_rules! at_each_boundary {
    ($($name:ident: $boundary:literal, $faults:literal, $latency:literal;)+) => {$(
        mod $name {
            use super::*;

            on_both! {
                async fn once(scratch: Scratch) { dies_at($boundary, $faults, $latency, 1, &scratch).await; }

                async fn persistently(scratch: Scratch) { dies_at($boundary, $faults, $latency, LIVES, &scratch).await; }
            }
        }
    )+};
}

at_each_boundary! {
    before_intent: "before-intent", "", 0;
    after_intent: "after-intent", "", 0;
    before_check: "before-check", "", 0;
    before_write: "before-write", "", 0;
    // The answer takes longer than the process lives.
    after_write: "after-write", "", 200;
    after_answer: "after-answer", "", 0;
    before_record: "before-record", "", 0;
    after_record: "after-record", "", 0;
    // No answer ever comes, so everything is settled by reading back.
    before_settle: "before-settle", "reset-after@*", 0;
    after_settle: "after-settle", "reset-after@*", 0;
    // A call is under way when the process is told to stop.
    at_shutdown: "at-shutdown", "", 200;
}

async fn dies_at(boundary: &str, faults: &str, latency: u64, lives: usize, scratch: &Scratch) {
    let (faults, latency) = (faults.parse().unwrap(), Duration::from_millis(latency));
    let simulator = Simulator::start(Options { faults, latency, ..calm() }).unwrap();
    // Small calls, one at a time: there is work left for every life.
    let settings = format!("[batch]\nmax_devices = 2\n{SETTLES}max_calls_in_flight = 1\n");
    let mut daemon = Daemon::migrated(&scratch.url, &simulator, &settings).await;
    scratch.request(&simulator, 12).await;
    for life in 1..=lives {
        let before = simulator.requests().len();
        daemon.launch(&simulator, &format!("{boundary}=return"));
        if boundary == "at-shutdown" {
            daemon.until("a call is under way", async || simulator.requests().len() > before).await;
            daemon.signal(Signal::TERM);
        }
        let end = daemon.ended().await.signal();
        assert_eq!(end, Some(Signal::ABORT.as_raw()), "{boundary}, life {life}\n{}", daemon.log().join("\n"));
    }

    daemon.run(&simulator).await;
    daemon.until_all_ended(scratch).await;
    assert_eq!(daemon.stop().await.code(), Some(0), "{boundary}\n{}", daemon.log().join("\n"));
    judge(scratch, &simulator, boundary).await;
    assert_eq!(simulator.ledger().len(), 12, "{boundary}: each device was wiped once");
}
