//! What the daemon says: one line a call, and nothing while nothing happens.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use reprovisiond::simulator::{Effect, Options, Simulator};
use serde_json::Value;

use crate::support::{BRISK, Backend, Daemon, OwnServer, SETTLES, Scratch, calm, on_both};

fn objects(daemon: &Daemon) -> Vec<Value> {
    daemon.log().iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The lines about calls, by the call: what each shows of the columns that `CALLS` asks for.
fn calls_logged(daemon: &Daemon) -> BTreeMap<String, String> {
    let mut calls = BTreeMap::new();
    for line in objects(daemon).iter().filter(|line| line["outcome"].is_string()) {
        let text = |name: &str| line[name].as_str().map_or_else(|| line[name].to_string(), ToOwned::to_owned);
        let shown = ["tenant", "action", "outcome", "devices", "http_status", "graph_request_id"].map(text).join("|");
        let counted =
            ["successful", "failed", "not_found", "not_supported", "unknown", "queued_again", "failed_tried_again"];
        let sum: u64 = counted.iter().filter_map(|name| line[name].as_u64()).sum();
        assert_eq!(Some(sum), line["devices"].as_u64(), "each device is counted once: {line}");
        assert!(line["attempt"].as_u64() >= Some(1) && line["duration_ms"].is_u64(), "{line}");
        assert_ne!(line["level"], "DEBUG", "{line}");
        let twice = calls.insert(text("call_id"), shown.replace("null", ""));
        assert_eq!(twice, None, "a second line about a call: {line}");
    }
    calls
}

const CALLS: &str = "SELECT id, tenant, action, state, device_count, http_status, graph_request_id FROM graph_calls";

async fn assert_a_line_a_call(daemon: &Daemon, scratch: &Scratch, states: &str) {
    let rows = scratch.rows(CALLS).await;
    let rows: BTreeMap<String, String> = rows
        .lines()
        .map(|row| row.split_once('|').map(|(id, rest)| (id.to_owned(), rest.to_owned())).unwrap())
        .collect();
    assert_eq!(calls_logged(daemon), rows, "{}", daemon.log().join("\n"));
    for id in rows.keys() {
        assert_eq!(daemon.logged(id), 1, "more is said of {id}: {}", daemon.log().join("\n"));
    }
    let sql = "SELECT DISTINCT state FROM graph_calls ORDER BY state";
    assert_eq!(scratch.rows(sql).await.replace('\n', " "), states);
}

on_both! {
    async fn each_call_has_one_line_that_agrees_with_its_row_whatever_came_of_it(scratch: Scratch) {
        // In doubt, throttled, in doubt with an answer, refused as a whole, and answered.
        let faults = "reset-after@2,429:1@4,500@6".parse().unwrap();
        let simulator = Simulator::start(Options { faults, ..calm() }).unwrap();
        simulator.add_fault(Effect::Poison(simulator.devices()[15].managed_device_id)).unwrap();
        let settings = format!("[batch]\nmax_devices = 4\n{SETTLES}max_calls_in_flight = 1\n");
        let daemon = Daemon::start(&scratch, &simulator, &settings).await;
        scratch.request(&simulator, 30).await;
        daemon.until_all_ended(&scratch).await;
        assert_a_line_a_call(&daemon, &scratch, "answered not_carried_out unknown").await;
        let throttled: Vec<_> = objects(&daemon).into_iter().filter(|line| line["http_status"] == 429).collect();
        assert_eq!((throttled.len(), &throttled[0]["wait_code"]), (1, &"throttled".into()), "{throttled:?}");
        assert!(throttled[0]["wait_ms"].as_u64() >= Some(1000) && throttled[0]["error"].is_string(), "{throttled:?}");
    }

    async fn a_call_that_blocks_its_tenant_has_one_line_and_says_why(scratch: Scratch) {
        let simulator = Simulator::start(Options { faults: "403@1".parse().unwrap(), ..calm() }).unwrap();
        let daemon = Daemon::start(&scratch, &simulator, BRISK).await;
        scratch.request(&simulator, 10).await;
        daemon.until_rows(&scratch, "SELECT block_code FROM tenants", "forbidden").await;
        assert_a_line_a_call(&daemon, &scratch, "not_carried_out").await;
        let line = &objects(&daemon).into_iter().find(|line| line["http_status"] == 403).unwrap();
        let told = [&line["level"], &line["block_code"], &line["queued_again"], &line["wait_ms"]];
        assert_eq!(told, [&"ERROR".into(), &"forbidden".into(), &Value::from(10), &Value::from(900_000)]);
    }

    async fn a_call_left_at_the_drain_deadline_has_its_line_too(scratch: Scratch) {
        let simulator = Simulator::start(calm()).unwrap();
        simulator.add_fault(Effect::HangAfter).unwrap();
        let mut daemon = Daemon::start(&scratch, &simulator, "[worker]\ndrain_timeout = \"100ms\"\n").await;
        scratch.request(&simulator, 5).await;
        daemon.until("the call is under way", async || simulator.ledger().len() == 5).await;
        assert!(daemon.stop().await.success());
        daemon.until_logged("stopped at the drain deadline").await;
        assert_a_line_a_call(&daemon, &scratch, "unknown").await;
    }

    async fn a_call_whose_worker_was_killed_has_its_line_from_the_one_that_finds_it(scratch: Scratch) {
        let simulator = Simulator::start(calm()).unwrap();
        simulator.add_fault(Effect::HangAfter).unwrap();
        let mut daemon = Daemon::start(&scratch, &simulator, "").await;
        scratch.request(&simulator, 5).await;
        daemon.until("the call is under way", async || simulator.ledger().len() == 5).await;
        daemon.signal(rustix::process::Signal::KILL);
        daemon.ended().await;
        daemon.run(&simulator).await;
        let lines: Vec<_> = objects(&daemon).into_iter().filter(|line| line["outcome"] == "unknown").collect();
        let told = lines.iter().map(|line| (line["call_id"].as_str().unwrap(), &line["devices"], &line["unknown"]));
        let id = scratch.rows("SELECT id FROM graph_calls").await;
        assert_eq!(told.collect::<Vec<_>>(), [(id.as_str(), &Value::from(5), &Value::from(5))]);
    }
}

/// A lease as short as can be: it is renewed every two thirds of a second.
const LIVELY: &str = "[worker]\npoll_interval = \"100ms\"\nlease = \"2s\"\nsend_within = \"500ms\"\n[reconcile]\nsettle_after = \"10m\"\n";

/// That the log stays as it is for as long as it takes to renew the lease five times, with several looks at the queue each time.
async fn assert_silent(daemon: &Daemon, scratch: &Scratch) {
    let before = daemon.log();
    for _ in 0..5 {
        let heartbeat = scratch.rows("SELECT heartbeat_at FROM workers").await;
        let moved = async || scratch.rows("SELECT heartbeat_at FROM workers").await != heartbeat;
        daemon.until("the lease is renewed", moved).await;
    }
    assert_eq!(daemon.log(), before);
}

on_both! {
    async fn an_idle_daemon_says_nothing_and_one_that_is_throttled_or_blocked_says_it_once(scratch: Scratch) {
        let simulator = Simulator::start(Options { faults: "429:2@1,403@2".parse().unwrap(), ..calm() }).unwrap();
        let daemon = Daemon::start(&scratch, &simulator, LIVELY).await;
        assert_silent(&daemon, &scratch).await;
        scratch.request(&simulator, 10).await;
        daemon.until_logged("\"wait_code\":\"throttled\"").await;
        let waits = daemon.log().len();
        daemon.until_logged("\"block_code\":\"forbidden\"").await;
        assert_eq!(daemon.logged("Graph has refused calls for their rate"), 1);
        assert_eq!(daemon.log().len(), waits + 2, "{}", daemon.log().join("\n"));
        assert_silent(&daemon, &scratch).await;
        assert_a_line_a_call(&daemon, &scratch, "not_carried_out").await;
    }

    async fn a_tenant_without_a_token_is_said_once_and_once_that_it_has_one(scratch: Scratch) {
        let simulator = Simulator::start(Options { faults: "token/503-bare@1-12".parse().unwrap(), ..calm() }).unwrap();
        let daemon = Daemon::start(&scratch, &simulator, &format!("{BRISK}{LIVELY}")).await;
        scratch.request(&simulator, 10).await;
        daemon.until_all_ended(&scratch).await;
        let said = (daemon.logged("no call can be made"), daemon.logged("calls can be made again"));
        assert_eq!(said, (1, 1), "{}", daemon.log().join("\n"));
        assert_silent(&daemon, &scratch).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_doubt_that_stays_open_is_said_again_only_when_what_is_seen_has_changed() {
    let scratch = Scratch::new(Backend::Sqlite).await;
    let simulator = Simulator::start(calm()).unwrap();
    simulator.add_fault(Effect::ResetBefore).unwrap();
    let settings = format!("{}{LIVELY}first_after = \"100ms\"\n", "[graph]\ncall_timeout = \"500ms\"\n");
    let mut daemon = Daemon::migrated(&scratch.url, &simulator, &settings).await;
    daemon.spawn(&simulator, &["env", "REPROVISIOND_LOG=reprovisiond=debug"]);
    scratch.request(&simulator, 1).await;
    let again = async || daemon.logged("read back, and nothing has changed") >= 3;
    daemon.until("it is read back again and again", again).await;
    assert_eq!(daemon.logged("devices in doubt were read back\""), 1, "{}", daemon.log().join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_away_for_long_is_said_once_by_each_who_needs_it() {
    let server = OwnServer::start_new().await;
    let scratch = server.scratch().await;
    let simulator = Simulator::start(calm()).unwrap();
    let settings = format!("database.patience = \"1s\"\n{BRISK}{LIVELY}[completion]\ntrack = true\n");
    let mut daemon = Daemon::migrated(&scratch.url, &simulator, &settings).await;
    // As by default, and each attempt besides.
    let (_, default) = include_str!("../../../src/telemetry.rs").split_once("const DEFAULT: &str = \"").unwrap();
    let log = format!("REPROVISIOND_LOG={},reprovisiond=debug", default.split_once('"').unwrap().0);
    daemon.spawn(&simulator, &["env", &log]);
    daemon.until_logged("\"started\"").await;
    server.stop().await;
    daemon.until("it has asked thirty times", async || daemon.logged("the queue still cannot be read") >= 30).await;
    let mut said = BTreeSet::new();
    for line in objects(&daemon).iter().filter(|line| line["level"] != "DEBUG") {
        assert!(said.insert(line["message"].to_string()), "twice: {line}\n{}", daemon.log().join("\n"));
    }
    assert!((2..=6).contains(&said.len()), "{said:?}");
    server.start().await;
    daemon.until_logged("the database is back").await;
}

/// Every name of a field in `src`, and where it is used.
fn names_in_source() -> BTreeMap<String, PathBuf> {
    let mut names = BTreeMap::new();
    let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        for level in ["error!(", "warn!(", "info!(", "debug!(", "trace!(", "$level!("] {
            for (_, event) in text.match_indices(level).map(|(at, _)| text[at..].split_at(level.len())) {
                names.extend(names_of(event).into_iter().map(|name| (name, path.clone())));
            }
        }
    }
    names
}

/// The names of an event's fields: what stands before `=`, or alone, until its text begins.
fn names_of(event: &str) -> Vec<String> {
    let (mut names, mut depth, mut word, mut past) = (Vec::new(), 0, String::new(), false);
    for c in event.chars() {
        match c {
            '"' if depth == 0 && word.trim().is_empty() => break,
            ')' if depth == 0 => break,
            ',' if depth == 0 => {
                names.push(std::mem::take(&mut word));
                past = false;
            }
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            '=' if depth == 0 => past = true,
            _ if depth == 0 && !past => word.push(c),
            _ => {}
        }
    }
    names.iter().map(|name| name.trim().trim_start_matches(['%', '?']).to_owned()).collect()
}

#[test]
fn the_documents_list_each_field_of_the_log_and_no_other() {
    assert_eq!(
        names_of("\n tenant = %self.name,\n error = x(a, b), %id, held,\n \"a = b, c\")"),
        ["tenant", "error", "id", "held"]
    );
    let page = include_str!("../../../deploy/docs/monitoring.md");
    let (_, table) = page.split_once("## Fields of the log\n").expect("the page has the table");
    let rows =
        table.lines().skip_while(|line| !line.starts_with("|---")).skip(1).take_while(|line| line.starts_with('|'));
    let listed: BTreeSet<&str> =
        rows.flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2)).collect();
    let used = names_in_source();
    let unlisted: Vec<_> = used.iter().filter(|(name, _)| !listed.contains(name.as_str())).collect();
    assert!(unlisted.is_empty(), "not in the table of deploy/docs/monitoring.md: {unlisted:?}");
    let unused: Vec<_> = listed.iter().filter(|name| !used.contains_key(**name) && **name != "lost_entries").collect();
    assert!(unused.is_empty(), "in the table of deploy/docs/monitoring.md, and no event has them: {unused:?}");
    for name in listed {
        let good = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        assert!(good && name.len() <= 51, "{name} cannot be a field of the journal behind REPROVISIOND_");
    }
}
