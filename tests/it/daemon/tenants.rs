//! What holds for a whole tenant: throttling, blocks, tokens.

use std::time::Duration;

use reprovisiond::simulator::token::READ_WRITE;
use reprovisiond::simulator::{FaultScript, Options, Simulator};

use crate::support::{BRISK, Daemon, calm, on_both};

on_both! {
    // One call at a time: of two, the second may have left while the first one's refusal was on its way.
    async fn nothing_is_sent_before_the_end_of_a_retry_after(scratch: Scratch) {
        let options = Options { faults: "429:1@2,503:1@5".parse::<FaultScript>().unwrap(), ..calm() };
        let simulator = Simulator::start(options).unwrap();
        let daemon = Daemon::start(&scratch, &simulator, &format!("[batch]\nmax_devices = 10\n[worker]\nmax_calls_in_flight = 1\n{BRISK}")).await;
        scratch.request(&simulator, 100).await;
        daemon.until_all_ended(&scratch).await;
        let requests = simulator.requests();
        let refused: Vec<_> = requests.iter().filter(|r| r.retry_after.is_some()).collect();
        assert_eq!(refused.len(), 2);
        for refusal in refused {
            let told = refusal.answered_at.unwrap();
            let early = requests.iter().find(|r| r.at > told && (r.at - told).to_std().unwrap() < Duration::from_secs(1));
            assert!(early.is_none(), "told at {told} to wait a second, and yet {early:?}");
        }
        assert_eq!(scratch.rows("SELECT max(attempt) FROM device_results").await, "1", "no attempt is charged");
    }

    async fn a_tenant_without_the_permission_is_blocked_and_says_what_to_do_until_a_restart_finds_it_mended(scratch: Scratch) {
        let simulator = Simulator::start(Options { roles: Vec::new(), ..calm() }).unwrap();
        let mut daemon = Daemon::start(&scratch, &simulator, BRISK).await;
        scratch.request(&simulator, 10).await;
        daemon.until_rows(&scratch, "SELECT block_code FROM tenants", "forbidden").await;
        let reason = scratch.rows("SELECT block_reason FROM tenants").await;
        assert!(reason.contains("CloudPC.ReadWrite.All"), "{reason}");
        assert_eq!(scratch.rows("SELECT state, count(*), max(attempts) FROM reprovision_queue GROUP BY state").await, "queued|10|0");

        simulator.grant_roles([READ_WRITE]);
        daemon.stop().await;
        daemon.run(&simulator).await;
        daemon.until_all_ended(&scratch).await;
        assert_eq!(scratch.rows("SELECT count(*) FROM tenants WHERE block_code IS NOT NULL").await, "0");
    }

    async fn an_action_that_is_gone_blocks_the_tenant_and_blames_no_device(scratch: Scratch) {
        let simulator = Simulator::start(Options { faults: "segment@*".parse().unwrap(), ..calm() }).unwrap();
        let daemon = Daemon::start(&scratch, &simulator, BRISK).await;
        scratch.request(&simulator, 10).await;
        daemon.until_rows(&scratch, "SELECT block_code FROM tenants", "action_unavailable").await;
        let reason = scratch.rows("SELECT block_reason FROM tenants").await;
        assert!(reason.contains("graph.action"), "{reason}");
        assert_eq!(scratch.rows("SELECT count(*) FROM device_results").await, "0");
        assert_eq!(simulator.requests().len(), 1);
    }

    async fn a_refused_token_is_renewed_once_and_the_work_goes_on(scratch: Scratch) {
        let simulator = Simulator::start(calm()).unwrap();
        let daemon = Daemon::start(&scratch, &simulator, BRISK).await;
        scratch.request(&simulator, 10).await;
        daemon.until_all_ended(&scratch).await;
        simulator.expire_tokens();
        scratch.request(&simulator, 20).await;
        daemon.until_all_ended(&scratch).await;
        let statuses: Vec<_> = simulator.requests().iter().filter_map(|r| r.status).collect();
        assert_eq!(statuses, [200, 401, 200]);
    }

    async fn an_entra_id_that_fails_makes_the_tenant_wait_and_loses_nothing(scratch: Scratch) {
        let simulator = Simulator::start(Options { faults: "token/503-bare@1-2".parse().unwrap(), ..calm() }).unwrap();
        let daemon = Daemon::start(&scratch, &simulator, BRISK).await;
        scratch.request(&simulator, 10).await;
        daemon.until_all_ended(&scratch).await;
        assert_eq!(simulator.requests().len(), 1);
        assert!(daemon.log().iter().any(|line| line.contains("no call can be made")));
    }

    async fn no_secret_and_no_token_appears_in_the_log_or_in_the_database(scratch: Scratch) {
        let simulator = Simulator::start(Options { faults: "token/401@1,500@1,403@2".parse().unwrap(), ..calm() }).unwrap();
        let mut daemon = Daemon::start(&scratch, &simulator, BRISK).await;
        scratch.request(&simulator, 10).await;
        daemon.until_rows(&scratch, "SELECT count(*) FROM graph_calls WHERE state = 'unknown'", "1").await;
        let secret = std::fs::read_to_string(simulator.client_secret_file()).unwrap();
        daemon.stop().await;
        let everything = daemon.log().join("\n") + &scratch.rows("SELECT * FROM graph_calls; SELECT * FROM tenants; SELECT * FROM device_results;").await;
        assert!(!secret.trim().is_empty() && !everything.contains(secret.trim()));
        assert!(!everything.contains("Bearer") && !everything.contains("eyJ"), "{everything}");
    }

    async fn every_log_line_is_one_json_object_whatever_producers_and_graph_write(scratch: Scratch) {
        let simulator = Simulator::start(Options { faults: "403@1".parse().unwrap(), ..calm() }).unwrap();
        let mut daemon = Daemon::start(&scratch, &simulator, BRISK).await;
        let device = simulator.devices()[2].managed_device_id;
        scratch.rows(&format!(
            "INSERT INTO reprovision_requests (managed_device_id, reason, requested_by) VALUES ('{device}', 'line\n{{\"level\":\"ERROR\"}}', 'x\ny')"
        )).await;
        daemon.until_rows(&scratch, "SELECT count(*) FROM tenants WHERE block_code IS NOT NULL", "1").await;
        daemon.stop().await;
        for line in daemon.log() {
            let object: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
            assert!(object["timestamp"].is_string() && object["level"].is_string() && object["message"].is_string(), "{line}");
        }
    }

    async fn a_private_authority_is_trusted_over_https_when_the_system_is_told_to(scratch: Scratch) {
        let simulator = Simulator::start(Options { tls: true, ..calm() }).unwrap();
        let daemon = Daemon::start(&scratch, &simulator, BRISK).await;
        scratch.request(&simulator, 10).await;
        daemon.until_all_ended(&scratch).await;
        assert_eq!(simulator.ledger().len(), 10);
    }
}
