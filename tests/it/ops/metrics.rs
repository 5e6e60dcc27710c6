//! Numbers that agree with what Graph saw, under names that Prometheus's own judge takes.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};

use reprovisiond::simulator::{FaultScript, Simulator};

use super::{Watched, value};
use crate::support::{BRISK, Backend, Scratch, calm, on_both};

fn promtool(text: &str) -> Result<(), String> {
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool (tests/prerequisites installs it)");
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    if output.status.success() && said.is_empty() { Ok(()) } else { Err(String::from_utf8_lossy(&said).into_owned()) }
}

on_both! {
    async fn what_is_counted_is_what_graph_saw(scratch: Scratch) {
        let simulator = Simulator::start(calm()).unwrap();
        simulator.add_fault("429:1".parse::<FaultScript>().unwrap().script.remove(0)).unwrap();
        let watched = Watched::start(&scratch, &simulator, BRISK).await;
        scratch.request(&simulator, 30).await;
        watched.daemon.until_all_ended(&scratch).await;
        let text = watched.get("/metrics").await.body;
        promtool(&text).unwrap_or_else(|said| panic!("{said}\n{text}"));

        let outcome = |word| value(&text, &format!("reprovisiond_calls_total{{action=\"bulk-reprovision-cloud-pc\",outcome=\"{word}\",tenant=\"default\"}}"));
        let calls = f64::from(u32::try_from(simulator.requests().len()).unwrap());
        assert!(outcome("not_carried_out") >= 1.0, "{text}");
        assert_eq!(outcome("answered") + outcome("not_carried_out"), calls, "{text}");
        assert_eq!(value(&text, "reprovisiond_call_duration_seconds_count{action=\"bulk-reprovision-cloud-pc\",tenant=\"default\"}"), calls, "{text}");
        let device = |word| value(&text, &format!("reprovisiond_device_outcomes_total{{outcome=\"{word}\",tenant=\"default\"}}"));
        assert_eq!(device("successful"), f64::from(u32::try_from(simulator.ledger().len()).unwrap()), "{text}");
        assert_eq!(device("unknown"), 0.0, "{text}");
        assert_eq!(value(&text, "reprovisiond_attempts_total{tenant=\"default\"}"), 30.0, "{text}");
        // Graph asked for one second, and nothing else made anybody wait.
        let waited = value(&text, "reprovisiond_wait_seconds_total{code=\"throttled\",tenant=\"default\"}");
        assert!((1.0..1.5).contains(&waited), "{text}");
        assert!(value(&text, "reprovisiond_wakeup_latency_seconds_count{tenant=\"default\"}") >= 30.0, "{text}");
        assert_eq!(value(&text, "reprovisiond_calls_in_flight{tenant=\"default\"}"), 0.0, "{text}");
        assert_eq!(value(&text, "reprovisiond_database_up"), 1.0, "{text}");
        assert_eq!(value(&text, "reprovisiond_lease_held"), 1.0, "{text}");
        assert!(value(&text, "reprovisiond_token_expiry_timestamp_seconds{tenant=\"default\"}") > 1.7e9, "{text}");
        assert_eq!(value(&text, "reprovisiond_queue_requests{state=\"ready\",tenant=\"default\"}"), 0.0, "{text}");
    }

    async fn a_doubt_that_a_person_must_settle_is_counted(scratch: Scratch) {
        let simulator = Simulator::start(calm()).unwrap();
        simulator.add_fault("reset-after".parse::<FaultScript>().unwrap().script.remove(0)).unwrap();
        let settings = "[reconcile]\nunknown_policy = \"hold\"\nfirst_after = \"0s\"\n";
        let watched = Watched::start(&scratch, &simulator, settings).await;
        scratch.request(&simulator, 3).await;
        watched.daemon.until_rows(&scratch, "SELECT DISTINCT state FROM reprovision_queue", "held").await;
        watched.daemon.until("the count", async || {
            watched.metric("reprovisiond_queue_requests{state=\"held\",tenant=\"default\"}").await == 3.0
        }).await;
        let text = watched.get("/metrics").await.body;
        assert_eq!(value(&text, "reprovisiond_settled_devices_total{outcome=\"held\",tenant=\"default\"}"), 3.0, "{text}");
        assert_eq!(value(&text, "reprovisiond_calls_in_doubt{tenant=\"default\"}"), 1.0, "{text}");
        assert!(value(&text, "reprovisiond_queue_oldest_age_seconds{state=\"held\",tenant=\"default\"}") > 0.0, "{text}");
    }
}

// On SQLite the daemon's own commits wake it too, and lead to looks of which nothing can be said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_into_an_empty_queue_is_claimed_without_a_look_before() {
    let scratch = Scratch::new(Backend::Postgres).await;
    let simulator = Simulator::start(calm()).unwrap();
    // So that there is no look for its own sake, and none when the rate has more.
    let settings = "[worker]\npoll_interval = \"1h\"\n[limits]\ncalls_per_period = 1000000\n";
    let watched = Watched::start(&scratch, &simulator, settings).await;
    let looks =
        async || watched.metric("reprovisiond_database_operation_duration_seconds_count{operation=\"facts\"}").await;
    scratch.request(&simulator, 1).await;
    watched.daemon.until_all_ended(&scratch).await;
    let before = looks().await;
    for others in 1..4 {
        scratch.request_after(&simulator, others, 1).await;
        watched.daemon.until_all_ended(&scratch).await;
    }
    assert_eq!((looks().await, simulator.ledger().len()), (before, 4));
}

on_both! {
    async fn what_is_followed_is_counted_and_drawn_by_how_it_ended(scratch: Scratch) {
        let simulator = Simulator::start(calm()).unwrap();
        let settings = format!("{BRISK}[graph]\naction = \"cloud-pc-reprovision\"\n[completion]\ntrack = true\nfirst_after = \"100ms\"\nshortest_delay = \"100ms\"\n");
        let watched = Watched::start(&scratch, &simulator, &settings).await;
        scratch.request(&simulator, 5).await;
        watched.daemon.until_rows(&scratch, "SELECT count(*) FROM completions WHERE state = 'done'", "5").await;
        watched.daemon.until("the count", async || {
            watched.metric("reprovisiond_completions_total{state=\"done\",tenant=\"default\"}").await == 5.0
        }).await;
        let none_left = async || watched.metric("reprovisiond_completions_followed{tenant=\"default\"}").await == 0.0;
        watched.daemon.until("none is followed any more", none_left).await;
        let text = watched.get("/metrics").await.body;
        promtool(&text).unwrap_or_else(|said| panic!("{said}\n{text}"));
        assert!(value(&text, "reprovisiond_calls_total{action=\"cloud-pc-reprovision\",outcome=\"answered\",tenant=\"default\"}") >= 1.0, "{text}");
        assert!(!text.contains("state=\"followed\""), "what has not ended is no end\n{text}");
        let page = watched.get("/").await.body;
        assert!(page.contains("Followed reprovisions that have ended") && page.contains("</span> done</span>"), "{page}");
        let device = scratch.rows("SELECT managed_device_id FROM completions LIMIT 1").await;
        assert!(watched.get(&format!("/device?id={device}")).await.body.contains("completion done"));
    }
}

#[test]
fn the_judge_of_names_finds_a_bad_one() {
    assert!(promtool("# TYPE x_total gauge\nx_total 1\n").is_err());
}

/// The names of metrics in a text, without what a histogram adds to them.
fn named(text: &str) -> BTreeSet<String> {
    let name =
        |rest: &str| rest.split(|c: char| !c.is_ascii_lowercase() && c != '_').next().unwrap_or_default().to_owned();
    let bare = |name: String| {
        ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end).map(str::to_owned)).unwrap_or(name)
    };
    text.match_indices("reprovisiond_").map(|(at, _)| bare(name(&text[at..]))).collect()
}

/// What is shown is what the page about it lists; alerts and dashboard ask for nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documents_alerts_and_dashboard_know_the_metrics_that_are_there() {
    let scratch = Scratch::new(Backend::Sqlite).await;
    let simulator = Simulator::start(calm()).unwrap();
    simulator.add_fault("429:1".parse::<FaultScript>().unwrap().script.remove(0)).unwrap();
    simulator.add_fault("403".parse::<FaultScript>().unwrap().script.remove(0)).unwrap();
    let watched = Watched::start(&scratch, &simulator, BRISK).await;
    scratch.request(&simulator, 1).await;
    watched
        .daemon
        .until("a block", async || watched.metric("reprovisiond_tenant_blocked{tenant=\"default\"}").await == 1.0)
        .await;
    let text = watched.get("/metrics").await.body;
    let shown: BTreeSet<String> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).map(str::to_owned).collect();
    let shipped =
        |name: &str| std::fs::read_to_string(format!("{}/deploy/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let page = shipped("docs/monitoring.md");
    let (_, table) = page.split_once("| metric | labels |").unwrap();
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let listed: BTreeSet<String> = rows.flat_map(|row| named(row.split('|').nth(1).unwrap())).collect();
    assert_eq!(listed, shown);
    for asks in ["prometheus/reprovisiond.rules.yml", "grafana/reprovisiond.json"] {
        let unknown: Vec<_> = named(&shipped(asks)).into_iter().filter(|name| !shown.contains(name)).collect();
        assert_eq!(unknown, [""; 0], "{asks}");
    }
}
