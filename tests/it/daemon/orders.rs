//! What a person orders while the daemon works, judged by what reaches Graph.

use reprovisiond::simulator::{FaultScript, Simulator};

use crate::support::{Daemon, Scratch, calm, on_both};

/// Nobody waits for the next poll: what an order changes is noticed.
const SLOW_POLL: &str = "[worker]\npoll_interval = \"1h\"\n";

/// A doubt goes to a person at once.
const HOLDS: &str = r#"
[reconcile]
unknown_policy = "hold"
first_after = "100ms"
[worker]
poll_interval = "1h"
"#;

const BY: [&str; 4] = ["--by", "ada", "--reason", "ticket 7"];

/// Asks for the `n`th device, in vain: that it ends tells that the daemon has looked at the queue since.
async fn until_looked(daemon: &Daemon, scratch: &Scratch, simulator: &Simulator, n: usize) {
    let device = simulator.devices()[n].managed_device_id;
    scratch.rows(&format!("INSERT INTO reprovision_requests (managed_device_id, not_before, expires_at) VALUES ('{device}', '2020-01-01T00:00:00Z', '2020-01-02T00:00:00Z')")).await;
    let ended =
        format!("SELECT count(*) FROM device_results WHERE bucket = 'expired' AND managed_device_id = '{device}'");
    daemon.until_rows(scratch, &ended, "1").await;
}

/// One held request, whose call had this fault.
async fn held(scratch: &Scratch, simulator: &Simulator, fault: &str) -> Daemon {
    simulator.add_fault(fault.parse::<FaultScript>().unwrap().script.remove(0)).unwrap();
    let daemon = Daemon::start(scratch, simulator, HOLDS).await;
    scratch.request(simulator, 1).await;
    daemon.until_rows(scratch, "SELECT state FROM request_status", "held").await;
    assert_eq!(simulator.requests().len(), 1);
    daemon
}

on_both! {
    async fn a_paused_tenant_sends_nothing_until_it_is_resumed(scratch: Scratch) {
        let simulator = Simulator::start(calm()).unwrap();
        let daemon = Daemon::start(&scratch, &simulator, SLOW_POLL).await;
        scratch.order(&[&["pause", "--tenant", "default"], &BY[..]].concat()).await;
        scratch.request(&simulator, 5).await;
        until_looked(&daemon, &scratch, &simulator, 20).await;
        assert_eq!(scratch.rows("SELECT count(*) FROM reprovision_queue WHERE state = 'queued'").await, "5");
        assert!(simulator.requests().is_empty());
        scratch.order(&[&["resume", "--tenant", "default"], &BY[..]].concat()).await;
        daemon.until_all_ended(&scratch).await;
        assert_eq!(simulator.ledger().len(), 5);
    }

    async fn a_paused_device_stays_behind_while_the_others_are_sent(scratch: Scratch) {
        let simulator = Simulator::start(calm()).unwrap();
        let mut daemon = Daemon::start(&scratch, &simulator, SLOW_POLL).await;
        daemon.stop().await;
        scratch.request(&simulator, 3).await;
        let device = simulator.devices()[3].managed_device_id;
        scratch.order(&[&["pause", "--device", &device.to_string()], &BY[..]].concat()).await;
        daemon.run(&simulator).await;
        daemon.until_rows(&scratch, "SELECT count(*) FROM device_results WHERE final", "2").await;
        until_looked(&daemon, &scratch, &simulator, 20).await;
        assert!(simulator.ledger().iter().all(|entry| entry.managed_device_id != device));
        scratch.order(&[&["resume", "--device", &device.to_string()], &BY[..]].concat()).await;
        daemon.until_all_ended(&scratch).await;
        assert_eq!(simulator.ledger().len(), 3);
    }

    async fn a_held_request_that_is_resolved_as_retry_is_sent_again(scratch: Scratch) {
        let simulator = Simulator::start(calm()).unwrap();
        let daemon = held(&scratch, &simulator, "reset-before").await;
        scratch.order(&[&["resolve", "--as", "retry", "--request", "1"], &BY[..]].concat()).await;
        daemon.until_all_ended(&scratch).await;
        assert_eq!((simulator.requests().len(), simulator.ledger().len()), (2, 1));
        let story = "SELECT attempt, bucket, source FROM device_results ORDER BY id";
        assert_eq!(scratch.rows(story).await, "1|unknown|answer\n1|unknown|read_back\n1|unknown|operator\n2|successful|answer");
    }

    async fn a_held_request_that_is_resolved_as_successful_ends_without_a_second_wipe(scratch: Scratch) {
        let simulator = Simulator::start(calm()).unwrap();
        let daemon = held(&scratch, &simulator, "reset-after").await;
        scratch.order(&[&["resolve", "--as", "successful", "--tenant", "default"], &BY[..]].concat()).await;
        daemon.until_all_ended(&scratch).await;
        assert_eq!(scratch.rows("SELECT bucket, source FROM device_results WHERE final").await, "successful|operator");
        // The doubt is over: the tenant goes on, and the device is not sent again.
        let other = simulator.devices()[9].managed_device_id;
        scratch.rows(&format!("INSERT INTO reprovision_requests (managed_device_id) VALUES ('{other}')")).await;
        daemon.until_all_ended(&scratch).await;
        let wiped: Vec<_> = simulator.ledger().iter().map(|entry| entry.managed_device_id).collect();
        assert_eq!(wiped, [simulator.devices()[2].managed_device_id, other]);
    }
}
