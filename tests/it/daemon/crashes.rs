//! What a killed daemon leaves, and what the next one makes of it.

use reprovisiond::simulator::{FaultScript, Simulator};
use rustix::process::Signal;

use crate::support::{Daemon, calm, on_both};

/// Doubts are settled soon.
const SETTLES: &str = r#"
[retry]
first_delay = "20ms"
longest_delay = "200ms"
[graph]
call_timeout = "500ms"
[worker]
send_within = "400ms"
[reconcile]
first_after = "100ms"
settle_after = "1s"
give_up_after = "30s"
clock_margin = "5s"
"#;

fn script(spec: &str) -> FaultScript {
    spec.parse().unwrap()
}

on_both! {
    async fn a_call_that_a_killed_daemon_left_is_unknown_and_never_sent_again(scratch: Scratch) {
        let simulator = Simulator::start(calm()).unwrap();
        simulator.add_fault(script("hang-after").script.remove(0)).unwrap();
        let mut daemon = Daemon::start(&scratch, &simulator, "").await;
        scratch.request(&simulator, 10).await;
        daemon.until("the call is under way", async || simulator.ledger().len() == 10).await;
        daemon.signal(Signal::KILL);
        daemon.ended().await;
        assert_eq!(scratch.rows("SELECT state, count(*) FROM reprovision_queue GROUP BY state").await, "sending|10");

        daemon.run(&simulator).await;
        assert_eq!(scratch.rows("SELECT state, count(*) FROM reprovision_queue GROUP BY state").await, "unknown|10");
        // Something else to do proves that the daemon works and still leaves them alone.
        let other = simulator.devices()[20].managed_device_id;
        scratch.rows(&format!("INSERT INTO reprovision_requests (managed_device_id) VALUES ('{other}')")).await;
        daemon.until_rows(&scratch, "SELECT count(*) FROM device_results WHERE final", "1").await;
        assert_eq!((simulator.requests().len(), simulator.ledger().len()), (2, 11));
        let doubts = "SELECT bucket, source, count(*) FROM device_results WHERE NOT final GROUP BY 1, 2";
        assert_eq!(scratch.rows(doubts).await, "unknown|policy|10");
    }

    async fn a_lost_answer_is_settled_by_read_back_without_a_second_wipe(scratch: Scratch) {
        let simulator = Simulator::start(calm()).unwrap();
        simulator.add_fault(script("reset-after").script.remove(0)).unwrap();
        let daemon = Daemon::start(&scratch, &simulator, SETTLES).await;
        scratch.request(&simulator, 10).await;
        daemon.until_all_ended(&scratch).await;
        let finals = "SELECT bucket, source, attempt, count(*) FROM device_results WHERE final GROUP BY 1, 2, 3";
        assert_eq!(scratch.rows(finals).await, "successful|read_back|1|10");
        // What it stands on is kept: Graph's answer under Graph's id, with what it showed and when.
        let evidence = scratch.rows("SELECT evidence FROM device_results WHERE final LIMIT 1").await;
        let evidence: serde_json::Value = serde_json::from_str(&evidence).unwrap();
        assert_eq!(evidence["actions"][0]["name"], "Reprovision");
        assert!(evidence["actions"][0]["started_at"].is_string() && evidence["read_at"].is_string(), "{evidence}");
        assert!(evidence["graph_request_id"].is_string(), "{evidence}");
        assert_eq!((simulator.requests().len(), simulator.ledger().len()), (1, 10));
    }

    async fn a_lost_request_is_sent_again_once_read_back_has_shown_nothing_for_the_settling_time(scratch: Scratch) {
        let simulator = Simulator::start(calm()).unwrap();
        simulator.add_fault(script("reset-before").script.remove(0)).unwrap();
        let daemon = Daemon::start(&scratch, &simulator, SETTLES).await;
        scratch.request(&simulator, 10).await;
        daemon.until_all_ended(&scratch).await;
        let attempts = "SELECT bucket, source, attempt, count(*) FROM device_results GROUP BY 1, 2, 3 ORDER BY 1, 2";
        let seen = "successful|answer|2|10\nunknown|answer|1|10\nunknown|read_back|1|10";
        assert_eq!(scratch.rows(attempts).await, seen);
        assert_eq!(simulator.ledger().len(), 10);
    }

    async fn a_graph_that_only_times_out_leaves_no_more_calls_in_doubt_than_the_limit_and_those_in_flight(scratch: Scratch) {
        let simulator = Simulator::start(calm()).unwrap();
        simulator.add_fault(script("done-504@*").script.remove(0)).unwrap();
        let daemon = Daemon::start(&scratch, &simulator, "[limits]\nopen_doubts = 2\n[worker]\nmax_calls_in_flight = 3\n").await;
        scratch.request(&simulator, 1000).await;
        daemon.until_rows(&scratch, "SELECT count(*) FROM graph_calls WHERE state = 'unknown'", "3").await;
        // A request of the newest kind is read, and waits like the others: the daemon has seen all there is.
        let status = "SELECT cautious FROM tenants";
        daemon.until("the tenant is cautious", async || ["1", "t"].contains(&scratch.rows(status).await.as_str())).await;
        assert_eq!(scratch.rows("SELECT count(*) FROM graph_calls").await, "3");
        assert_eq!(simulator.requests().len(), 3);
    }
}
