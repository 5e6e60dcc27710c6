//! SIGHUP: what may change while the daemon works changes, what may not is named, and what is wrong changes nothing.

use std::time::Duration;

use reprovisiond::simulator::{Effect, Simulator};
use rustix::process::Signal;

use crate::support::{Backend, Daemon, Scratch, calm, on_both};

const RELOADED: &str = "the configuration is reloaded";
const REFUSED: &str = "the configuration is not reloaded";

/// One device a call, and so many calls as devices.
const SINGLE: &str = "[batch]\nmax_devices = 1\n";

async fn reload(daemon: &Daemon, change: impl FnOnce(&str) -> String, outcome: &str) -> String {
    let before = daemon.logged(outcome);
    daemon.reconfigure(change);
    daemon.signal(Signal::HUP);
    daemon.until(outcome, async || daemon.logged(outcome) > before).await;
    daemon.log().into_iter().rfind(|line| line.contains(outcome)).unwrap()
}

on_both! {
    async fn a_changed_batch_is_in_force_from_the_next_call_on(scratch: Scratch) {
        let simulator = Simulator::start(calm()).unwrap();
        let daemon = Daemon::start(&scratch, &simulator, SINGLE).await;
        scratch.request(&simulator, 3).await;
        daemon.until_all_ended(&scratch).await;
        assert_eq!(simulator.requests().len(), 3);
        let line = reload(&daemon, |text| text.replace("max_devices = 1", "max_devices = 50"), RELOADED).await;
        assert!(line.contains("batch.max_devices: 1 -> 50"), "{line}");
        scratch.request_after(&simulator, 3, 5).await;
        daemon.until_all_ended(&scratch).await;
        assert_eq!((simulator.requests().len(), simulator.ledger().len()), (4, 8));
    }

    async fn a_call_under_way_ends_as_it_began_and_a_reload_does_not_wait_for_it(scratch: Scratch) {
        let simulator = Simulator::start(calm()).unwrap();
        simulator.add_fault(Effect::Latency(Duration::from_secs(2))).unwrap();
        let daemon = Daemon::start(&scratch, &simulator, "[retry]\nmax_attempts = 2\n").await;
        scratch.request(&simulator, 4).await;
        daemon.until("the call is under way", async || simulator.ledger().len() == 4).await;
        reload(&daemon, |text| text.replace("max_attempts = 2", "max_attempts = 5"), RELOADED).await;
        daemon.until_all_ended(&scratch).await;
        assert_eq!(scratch.rows("SELECT bucket, count(*) FROM device_results GROUP BY bucket").await, "successful|4");
        assert_eq!(simulator.requests().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_with_mistakes_changes_nothing_and_each_mistake_is_named() {
    let scratch = Scratch::new(Backend::Sqlite).await;
    let simulator = Simulator::start(calm()).unwrap();
    let daemon = Daemon::start(&scratch, &simulator, SINGLE).await;
    let wrong = |text: &str| text.replace("max_devices = 1", "max_devices = 5\nlinger = \"soon\"\ncolour = 1");
    let line = reload(&daemon, wrong, REFUSED).await;
    assert!(line.contains("2 mistakes") && line.contains("batch.linger") && line.contains("colour"), "{line}");
    // Not even the part that is right.
    scratch.request(&simulator, 3).await;
    daemon.until_all_ended(&scratch).await;
    assert_eq!(simulator.requests().len(), 3);
    // It is mended, and is compared with what is in force.
    let mended = |text: &str| text.replace("\nlinger = \"soon\"\ncolour = 1", "");
    let line = reload(&daemon, mended, RELOADED).await;
    assert!(line.contains("batch.max_devices: 1 -> 5"), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_needs_a_restart_is_named_with_its_reason_until_it_has_had_one() {
    let scratch = Scratch::new(Backend::Sqlite).await;
    let simulator = Simulator::start(calm()).unwrap();
    let mut daemon = Daemon::start(&scratch, &simulator, "[worker]\nlease = \"60s\"\n").await;
    let longer = |text: &str| {
        let other = text.split_once("[tenants.default]").unwrap().1;
        format!("{}[tenants.fabrikam]{other}", text.replace("\"60s\"", "\"90s\""))
    };
    let line = reload(&daemon, longer, RELOADED).await;
    assert!(line.contains("worker.lease: 60s -> 90s (other workers believe in the lease"), "{line}");
    assert!(
        line.contains("tenants.fabrikam.cloud: (none) -> custom (the tenant is added at the next start)"),
        "{line}"
    );
    let line = reload(&daemon, ToOwned::to_owned, RELOADED).await;
    assert!(line.contains("worker.lease: 60s -> 90s"), "{line}");
    daemon.stop().await;
    daemon.run(&simulator).await;
    let line = reload(&daemon, ToOwned::to_owned, RELOADED).await;
    assert!(line.contains("nothing has changed"), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_go_together_before_the_restart_is_refused() {
    let scratch = Scratch::new(Backend::Sqlite).await;
    let simulator = Simulator::start(calm()).unwrap();
    let daemon = Daemon::start(&scratch, &simulator, "[graph]\ncall_timeout = \"8m\"\n").await;
    // Both together are good; but until the restart calls may take eight minutes.
    let sooner = |text: &str| text.replace("\"8m\"", "\"10s\"\n[reconcile]\nsettle_after = \"5m\"");
    let line = reload(&daemon, sooner, REFUSED).await;
    assert!(
        line.contains("reconcile.settle_after = 5m: must be longer than worker.send_within + graph.call_timeout"),
        "{line}"
    );
}
