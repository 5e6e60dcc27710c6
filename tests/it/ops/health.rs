//! Whether the process works, and whether work could go.

use reprovisiond::simulator::{FaultScript, Simulator};

use super::{Watched, get, value};
use crate::support::{BRISK, Backend, Daemon, OwnServer, Scratch, calm, on_both};

on_both! {
    async fn a_daemon_that_could_work_says_so(scratch: Scratch) {
        let simulator = Simulator::start(calm()).unwrap();
        let watched = Watched::start(&scratch, &simulator, BRISK).await;
        let health = watched.get("/healthz").await;
        assert_eq!((health.status, health.body.as_str()), (200, "ok\n"));
        watched.daemon.until("the first look", async || watched.get("/readyz").await.status == 200).await;
        let ready = watched.get("/readyz").await;
        let document: serde_json::Value = serde_json::from_str(&ready.body).unwrap();
        assert_eq!((ready.status, &document["ready"]), (200, &true.into()), "{}", ready.body);
        let names: Vec<_> = document["checks"].as_array().unwrap().iter().map(|c| c["check"].as_str().unwrap()).collect();
        assert_eq!(names, ["work_loop", "running", "queue", "lease", "token of default", "database", "tenant default"]);
        let status: serde_json::Value = serde_json::from_str(&watched.get("/status.json").await.body).unwrap();
        assert_eq!(status["needs"], serde_json::json!([]));
        assert_eq!(status["tenants"][0]["ready"], 0, "{status}");
        assert!(status["tenants"][0].get("successful").is_none(), "{status}");
    }

    async fn a_blocked_tenant_is_not_ready_and_the_reason_is_told(scratch: Scratch) {
        let simulator = Simulator::start(calm()).unwrap();
        simulator.add_fault("403".parse::<FaultScript>().unwrap().script.remove(0)).unwrap();
        let watched = Watched::start(&scratch, &simulator, BRISK).await;
        scratch.request(&simulator, 1).await;
        watched.daemon.until("not ready", async || watched.get("/readyz").await.status == 503).await;
        let body = watched.get("/readyz").await.body;
        assert!(body.contains("blocked: ") && body.contains("403"), "{body}");
        assert_eq!(watched.get("/healthz").await.status, 200);
        let status: serde_json::Value = serde_json::from_str(&watched.get("/status.json").await.body).unwrap();
        assert!(status["needs"][0].as_str().unwrap().contains("systemctl restart reprovisiond"), "{status}");
    }

    async fn a_newer_schema_is_not_ready(scratch: Scratch) {
        let simulator = Simulator::start(calm()).unwrap();
        let watched = Watched::start(&scratch, &simulator, BRISK).await;
        let checksum = match scratch.backend() {
            crate::support::Backend::Sqlite => "x'00'",
            crate::support::Backend::Postgres => "'\\x00'",
        };
        scratch.rows(&format!("INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9999, 'newer', true, {checksum}, 0)")).await;
        watched.daemon.until("not ready", async || watched.get("/readyz").await.status == 503).await;
        let body = watched.get("/readyz").await.body;
        assert!(body.contains("9999"), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_away_is_told_and_what_the_process_knows_is_still_there() {
    let server = OwnServer::start_new().await;
    let scratch = server.scratch().await;
    let simulator = Simulator::start(calm()).unwrap();
    let watched = Watched::start(
        &scratch,
        &simulator,
        &format!("database.patience = \"2s\"\n{BRISK}[worker]\npoll_interval = \"100ms\"\n"),
    )
    .await;
    server.kill9();
    watched.daemon.until("down", async || watched.metric("reprovisiond_database_up").await == 0.0).await;
    let text = get(&watched.address, "/metrics").await.body;
    assert_eq!(
        value(
            &text,
            "reprovisiond_calls_total{action=\"bulk-reprovision-cloud-pc\",outcome=\"answered\",tenant=\"default\"}"
        ),
        0.0,
        "{text}"
    );
    assert!(!text.contains("reprovisiond_queue_requests"), "what is not known is not shown\n{text}");
    let ready = watched.get("/readyz").await;
    assert_eq!(ready.status, 503, "{}", ready.body);
    for part in ["\"database\"", "the last look at the queue failed"] {
        watched.daemon.until(part, async || watched.get("/readyz").await.body.contains(part)).await;
    }
    assert_eq!(watched.get("/").await.status, 503);
    assert_eq!(watched.get("/healthz").await.status, 200);
    server.start().await;
    watched.daemon.until("ready again", async || watched.get("/readyz").await.status == 200).await;
}

/// The loop's sleep is longer than its silence may be, and its lease is renewed often.
const TIMES: &str = "database.patience = \"1s\"\n[worker]\npoll_interval = \"1h\"\nlease = \"2s\"\nsend_within = \"1s\"\n[reconcile]\nsettle_after = \"10m\"\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_work_loop_that_hangs_is_unhealthy_though_its_lease_is_kept() {
    let scratch = Scratch::new(Backend::Sqlite).await;
    let simulator = Simulator::start(calm()).unwrap();
    let hangs = ["env", "FAILPOINTS=before-pass=1*off->return(hang)"];
    let watched = Watched::start_under(&scratch, &simulator, TIMES, &hangs).await;
    scratch.request(&simulator, 1).await;
    watched.daemon.until("unhealthy", async || watched.get("/healthz").await.status == 503).await;
    let body = watched.get("/healthz").await.body;
    assert!(body.contains("no sign of life for 3 s") && body.contains("restart the daemon"), "{body}");
    let text = watched.get("/metrics").await.body;
    assert!(value(&text, "reprovisiond_work_loop_silent_seconds") > 3.0, "{text}");
    assert_eq!(value(&text, "reprovisiond_lease_held"), 1.0, "{text}");
    assert_eq!(watched.get("/readyz").await.status, 503);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_work_loop_that_has_nothing_to_do_stays_healthy() {
    let scratch = Scratch::new(Backend::Sqlite).await;
    let simulator = Simulator::start(calm()).unwrap();
    let watched = Watched::start(&scratch, &simulator, TIMES).await;
    let started = std::time::Instant::now();
    let longer = async || {
        assert_eq!(watched.get("/healthz").await.status, 200);
        started.elapsed() > std::time::Duration::from_secs(5)
    };
    watched.daemon.until("longer than it may be silent", longer).await;
    assert_eq!(watched.get("/readyz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_the_first_look_nothing_is_ready() {
    let scratch = Scratch::new(Backend::Sqlite).await;
    let simulator = Simulator::start(calm()).unwrap();
    let hangs = ["env", "FAILPOINTS=before-pass=return(hang)"];
    let watched = Watched::start_under(&scratch, &simulator, BRISK, &hangs).await;
    let ready = watched.get("/readyz").await;
    assert_eq!(ready.status, 503, "{}", ready.body);
    assert!(ready.body.contains("the queue has not been looked at yet"), "{}", ready.body);
    assert_eq!(watched.get("/healthz").await.status, 200, "it may still be about to");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_drains_is_well_and_not_ready() {
    let scratch = Scratch::new(Backend::Sqlite).await;
    let simulator = Simulator::start(calm()).unwrap();
    simulator.add_fault("latency:3s".parse::<FaultScript>().unwrap().script.remove(0)).unwrap();
    let mut watched = Watched::start(&scratch, &simulator, BRISK).await;
    scratch.request(&simulator, 1).await;
    let in_flight = async || watched.metric("reprovisiond_calls_in_flight{tenant=\"default\"}").await == 1.0;
    watched.daemon.until("a call under way", in_flight).await;
    watched.daemon.signal(rustix::process::Signal::TERM);
    watched.daemon.until("not ready", async || watched.get("/readyz").await.status == 503).await;
    let body = watched.get("/readyz").await.body;
    assert!(body.contains("the daemon is stopping"), "{body}");
    assert_eq!(watched.get("/healthz").await.status, 200);
    assert!(watched.daemon.ended().await.success());
    assert_eq!(scratch.rows("SELECT count(*) FROM device_results WHERE final").await, "1");
}

/// What `reprovisiond health` says of the daemon at `listen`, with its exit code.
async fn health(listen: &str, args: &[&str]) -> (Option<i32>, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_reprovisiond"));
    command.arg("health").args(args).env_clear();
    if !listen.is_empty() {
        command.env("REPROVISIOND_OPS_LISTEN", listen);
    }
    let output = command.output().await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_that_runs_a_command_learns_what_one_that_asks_would() {
    let scratch = Scratch::new(Backend::Sqlite).await;
    let simulator = Simulator::start(calm()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}", directory.path().join("ops.sock").display());
    let settings = format!("{BRISK}[ops]\nlisten = \"{socket}\"\n");
    let mut daemon = Daemon::start(&scratch, &simulator, &settings).await;
    assert_eq!(health(&socket, &[]).await, (Some(0), "ok\n".to_owned()));
    daemon.until("the first look", async || health(&socket, &["--ready"]).await.0 == Some(0)).await;

    simulator.add_fault("403".parse::<FaultScript>().unwrap().script.remove(0)).unwrap();
    scratch.request(&simulator, 1).await;
    daemon.until("not ready", async || health(&socket, &["--ready"]).await.0 == Some(1)).await;
    assert!(health(&socket, &["--ready"]).await.1.contains("blocked: "));
    assert_eq!(health(&socket, &[]).await.0, Some(0));

    daemon.stop().await;
    let (code, said) = health(&socket, &[]).await;
    assert!(code == Some(69) && said.contains("does the daemon run"), "{code:?} {said}");
    let (code, said) = health("", &[]).await;
    assert!(code == Some(78) && said.contains("ops.listen is not set"), "{code:?} {said}");
    let (code, said) = health("0.0.0.0:1", &[]).await;
    assert!(code == Some(78) && said.contains("not a loopback address"), "{code:?} {said}");
}
