//! Signing in, each way that the configuration knows, over HTTPS with an authority that only the daemon's environment names.

use reprovisiond::simulator::{Options, Simulator};

use crate::support::{BRISK, Daemon, Scratch, calm, on_both};

/// A daemon with these lines in the place of its client secret's, not started yet.
async fn with_credential(scratch: &Scratch, simulator: &Simulator, credential: &str) -> Daemon {
    let daemon = Daemon::migrated(&scratch.url, simulator, BRISK).await;
    let secret = format!("client_secret_file = \"{}\"\n", simulator.client_secret_file().display());
    daemon.reconfigure(|toml| {
        assert!(toml.contains(&secret), "{toml}");
        toml.replace(&secret, credential)
    });
    daemon
}

fn https() -> Simulator {
    Simulator::start(Options { tls: true, ..calm() }).unwrap()
}

/// Ten requests end as they should, and the most talkative log holds nothing that opens anything.
async fn signs_in(scratch: &Scratch, simulator: &Simulator, mut daemon: Daemon) {
    let (endpoint, header) = simulator.identity_endpoint();
    let variables = [format!("IDENTITY_ENDPOINT={endpoint}"), format!("IDENTITY_HEADER={header}")];
    daemon.spawn(simulator, &["env", &variables[0], &variables[1], "REPROVISIOND_LOG=trace"]);
    assert_eq!(daemon.started().await, None, "{}", daemon.log().join("\n"));
    scratch.request(simulator, 10).await;
    daemon.until_all_ended(scratch).await;
    assert_eq!(simulator.ledger().len(), 10);
    assert_eq!(daemon.stop().await.code(), Some(0));

    let log = daemon.log().join("\n");
    let secret = std::fs::read_to_string(simulator.client_secret_file()).unwrap();
    let key = std::fs::read_to_string(simulator.certificate_file()).unwrap();
    let key = key.lines().rev().nth(1).unwrap();
    assert!(log.contains("\"TRACE\""), "the log is not at its most talkative");
    // Tokens and assertions are JWTs, which begin with the Base64 of a brace and a quotation mark.
    for what in [secret.trim(), key, &header, "eyJ"] {
        assert!(!what.is_empty() && !log.contains(what), "{what} is in the log:\n{log}");
    }
}

on_both! {
    async fn a_client_secret_signs_in(scratch: Scratch) {
        let simulator = https();
        let line = format!("client_secret_file = \"{}\"\n", simulator.client_secret_file().display());
        let daemon = with_credential(&scratch, &simulator, &line).await;
        signs_in(&scratch, &simulator, daemon).await;
    }

    async fn a_certificate_signs_in(scratch: Scratch) {
        let simulator = https();
        let file = simulator.certificate_file().display();
        let lines = format!("credential = \"certificate\"\ncertificate_file = \"{file}\"\n");
        let daemon = with_credential(&scratch, &simulator, &lines).await;
        signs_in(&scratch, &simulator, daemon).await;
    }

    async fn a_workload_identity_signs_in(scratch: Scratch) {
        let simulator = https();
        let file = simulator.federated_token_file().display();
        let lines = format!("credential = \"workload-identity\"\nfederated_token_file = \"{file}\"\n");
        let daemon = with_credential(&scratch, &simulator, &lines).await;
        signs_in(&scratch, &simulator, daemon).await;
    }

    async fn a_user_assigned_managed_identity_signs_in(scratch: Scratch) {
        let simulator = https();
        let daemon = with_credential(&scratch, &simulator, "credential = \"managed-identity\"\n").await;
        signs_in(&scratch, &simulator, daemon).await;
    }

    async fn a_system_assigned_managed_identity_signs_in(scratch: Scratch) {
        let simulator = https();
        let daemon = with_credential(&scratch, &simulator, "credential = \"managed-identity\"\n").await;
        let id = format!("client_id = \"{}\"\n", simulator.client_id());
        daemon.reconfigure(|toml| toml.replace(&id, ""));
        signs_in(&scratch, &simulator, daemon).await;
    }

    async fn without_the_private_authority_nothing_is_sent_and_the_tenant_waits_with_the_reason(scratch: Scratch) {
        let simulator = https();
        let mut daemon = Daemon::migrated(&scratch.url, &simulator, BRISK).await;
        scratch.request(&simulator, 10).await;
        daemon.spawn(&simulator, &["env", "-u", "SSL_CERT_FILE"]);
        assert_eq!(daemon.started().await, None, "{}", daemon.log().join("\n"));
        daemon.until_rows(&scratch, "SELECT wait_code FROM tenants", "no_token").await;
        let reason = scratch.rows("SELECT wait_reason FROM tenants").await;
        assert!(reason.contains("127.0.0.1 cannot be reached") && reason.contains("UnknownIssuer"), "{reason}");
        assert_eq!(scratch.rows("SELECT state, count(*), max(attempts) FROM reprovision_queue GROUP BY state").await, "queued|10|0");
        daemon.stop().await;
        assert!(simulator.requests().is_empty());
        assert_eq!(daemon.logged("Failed response"), 0, "the SDK says what is said once already");

        daemon.run(&simulator).await;
        daemon.until_all_ended(&scratch).await;
        assert_eq!(simulator.ledger().len(), 10);
    }

    async fn a_certificate_that_is_replaced_is_taken_up_without_a_restart(scratch: Scratch) {
        let simulator = https();
        let directory = tempfile::tempdir().unwrap();
        let mine = directory.path().join("app.pem");
        std::fs::copy(simulator.certificate_file(), &mine).unwrap();
        simulator.rotate_credentials().unwrap();
        let lines = format!("credential = \"certificate\"\ncertificate_file = \"{}\"\n", mine.display());
        let mut daemon = with_credential(&scratch, &simulator, &lines).await;
        daemon.run(&simulator).await;
        scratch.request(&simulator, 10).await;
        daemon.until_logged("AADSTS700027").await;
        std::fs::copy(simulator.certificate_file(), &mine).unwrap();
        daemon.until_all_ended(&scratch).await;
        assert_eq!(simulator.ledger().len(), 10);
    }
}
