//! From an INSERT to a final result.

use std::collections::HashMap;

use reprovisiond::simulator::{Options, Shares, Simulator};
use rustix::process::Signal;

use crate::support::{BRISK, Daemon, calm, on_both};

on_both! {
    async fn ten_thousand_requests_end_in_one_final_result_each_and_every_device_is_wiped_once(scratch: Scratch) {
        let options = Options { devices: 10_000, shares: Shares::default(), ..calm() };
        let simulator = Simulator::start(options).unwrap();
        let daemon = Daemon::start(&scratch, &simulator, BRISK).await;
        // A producer that takes its time: the daemon works while it inserts.
        let devices: Vec<String> =
            simulator.devices().iter().skip(2).map(|device| format!("('{}')", device.managed_device_id)).collect();
        for rows in devices.chunks(1000) {
            scratch.rows(&format!("INSERT INTO reprovision_requests (managed_device_id) VALUES {}", rows.join(","))).await;
        }
        daemon.until_all_ended(&scratch).await;

        let finals = "SELECT count(*), count(DISTINCT request_id) FROM device_results WHERE final";
        assert_eq!(scratch.rows(finals).await, "10000|10000");
        let mut wiped: HashMap<String, u32> = HashMap::new();
        for entry in simulator.ledger() {
            *wiped.entry(entry.managed_device_id.to_string()).or_default() += 1;
        }
        assert!(wiped.values().all(|times| *times == 1), "{wiped:?}");
        let successful = "SELECT managed_device_id FROM device_results WHERE bucket = 'successful' ORDER BY 1";
        let mut expected: Vec<String> = wiped.into_keys().collect();
        expected.sort();
        assert_eq!(scratch.rows(successful).await.lines().collect::<Vec<_>>(), expected);
        // Each call is in the database under the id that Graph saw.
        let calls = "SELECT id FROM graph_calls WHERE state = 'answered' AND http_status = 200 ORDER BY 1";
        let mut seen: Vec<String> = simulator.requests().into_iter().filter_map(|r| r.client_request_id).collect();
        seen.sort();
        assert_eq!(scratch.rows(calls).await.lines().collect::<Vec<_>>(), seen);
    }

    async fn a_request_that_another_process_inserts_wakes_the_daemon_long_before_it_polls(scratch: Scratch) {
        let simulator = Simulator::start(calm()).unwrap();
        let daemon = Daemon::start(&scratch, &simulator, "[worker]\npoll_interval = \"1h\"\n").await;
        for n in 1..=3 {
            let device = simulator.devices()[n].managed_device_id;
            scratch.rows(&format!("INSERT INTO reprovision_requests (managed_device_id) VALUES ('{device}')")).await;
            daemon.until_rows(&scratch, "SELECT count(*) FROM device_results WHERE final", &n.to_string()).await;
        }
    }

    async fn higher_priority_goes_first_and_two_requests_for_one_device_never_at_once(scratch: Scratch) {
        let simulator = Simulator::start(calm()).unwrap();
        let mut daemon = Daemon::start(&scratch, &simulator, "[batch]\nmax_devices = 1\n[worker]\nmax_calls_in_flight = 1\n").await;
        daemon.stop().await;
        let device: Vec<String> = simulator.devices().iter().map(|d| d.managed_device_id.to_string()).collect();
        scratch.rows(&format!(
            "INSERT INTO reprovision_requests (managed_device_id, priority) VALUES ('{0}', 0), ('{1}', 5), ('{1}', 5), ('{2}', 9)",
            device[2], device[3], device[4]
        )).await;
        daemon.run(&simulator).await;
        daemon.until_all_ended(&scratch).await;
        let order: Vec<String> = simulator.ledger().iter().map(|e| e.managed_device_id.to_string()).collect();
        let expected = [4, 3, 3, 2].map(|n: usize| device[n].clone());
        assert_eq!(order, expected);
    }

    async fn what_expires_before_it_can_be_sent_ends_expired_and_is_never_sent(scratch: Scratch) {
        let simulator = Simulator::start(calm()).unwrap();
        let daemon = Daemon::start(&scratch, &simulator, BRISK).await;
        let device = simulator.devices()[2].managed_device_id;
        scratch.rows(&format!(
            "INSERT INTO reprovision_requests (managed_device_id, not_before, expires_at) VALUES ('{device}', '2020-01-01T00:00:00Z', '2020-01-02T00:00:00Z')"
        )).await;
        daemon.until_all_ended(&scratch).await;
        assert_eq!(scratch.rows("SELECT bucket, source, attempt FROM device_results").await, "expired|policy|0");
        assert!(simulator.requests().is_empty());
    }

    async fn a_first_sigterm_lets_the_call_in_flight_end_and_exits_with_0(scratch: Scratch) {
        let simulator = Simulator::start(calm()).unwrap();
        simulator.add_fault(reprovisiond::simulator::Effect::Latency(std::time::Duration::from_millis(700))).unwrap();
        let mut daemon = Daemon::start(&scratch, &simulator, BRISK).await;
        scratch.request(&simulator, 5).await;
        daemon.until("the call is under way", async || !simulator.requests().is_empty()).await;
        let ended = daemon.stop().await;
        assert_eq!(ended.code(), Some(0), "{}", daemon.log().join("\n"));
        assert_eq!(scratch.rows("SELECT bucket, count(*) FROM device_results WHERE final GROUP BY bucket").await, "successful|5");
    }

    async fn a_second_signal_leaves_at_once_and_the_call_is_in_doubt_after_the_next_start(scratch: Scratch) {
        let simulator = Simulator::start(calm()).unwrap();
        simulator.add_fault("hang-after".parse::<reprovisiond::simulator::FaultScript>().unwrap().script.remove(0)).unwrap();
        let mut daemon = Daemon::start(&scratch, &simulator, BRISK).await;
        scratch.request(&simulator, 5).await;
        daemon.until("the call is under way", async || !simulator.ledger().is_empty()).await;
        daemon.signal(Signal::TERM);
        daemon.until("it drains", async || daemon.log().iter().any(|line| line.contains("waiting for calls in flight"))).await;
        daemon.signal(Signal::INT);
        assert_eq!(daemon.ended().await.code(), Some(1));
        assert_eq!(scratch.rows("SELECT state FROM graph_calls").await, "sending");
        daemon.run(&simulator).await;
        assert_eq!(scratch.rows("SELECT state, error_code FROM graph_calls").await, "unknown|abandoned");
        assert_eq!(scratch.rows("SELECT state, count(*) FROM reprovision_queue GROUP BY state").await, "unknown|5");
    }

    async fn the_drain_deadline_ends_a_stop_and_the_call_left_is_in_doubt_at_once(scratch: Scratch) {
        let simulator = Simulator::start(calm()).unwrap();
        simulator.add_fault("hang-after".parse::<reprovisiond::simulator::FaultScript>().unwrap().script.remove(0)).unwrap();
        let mut daemon = Daemon::start(&scratch, &simulator, "[worker]\ndrain_timeout = \"100ms\"\n").await;
        scratch.request(&simulator, 5).await;
        daemon.until("the call is under way", async || !simulator.ledger().is_empty()).await;
        assert_eq!(daemon.stop().await.code(), Some(0));
        assert_eq!(scratch.rows("SELECT state, count(*) FROM reprovision_queue GROUP BY state").await, "unknown|5");
    }
}
