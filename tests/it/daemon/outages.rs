//! Postgres goes away, says nothing any more, or was never there.

use std::time::Duration;

use reprovisiond::simulator::{Effect, Simulator};

use crate::support::{BRISK, Backend, Daemon, Network, OwnServer, Scratch, calm};

/// What the database may take here, so that no test waits for long.
const IMPATIENT: &str = "database.patience = \"1s\"\n";

async fn by_bucket(scratch: &Scratch) -> String {
    scratch.rows("SELECT bucket, count(*) FROM device_results WHERE final GROUP BY bucket").await
}

fn devices_wiped(simulator: &Simulator) -> usize {
    let mut devices: Vec<String> = simulator.ledger().iter().map(|entry| entry.managed_device_id.to_string()).collect();
    let calls = devices.len();
    devices.sort();
    devices.dedup();
    assert_eq!(devices.len(), calls, "a device was wiped twice");
    calls
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_comes_while_the_server_is_killed_is_kept_and_recorded_once_it_is_back() {
    let server = OwnServer::start_new().await;
    let scratch = server.scratch().await;
    let simulator = Simulator::start(calm()).unwrap();
    simulator.add_fault(Effect::Latency(Duration::from_secs(1))).unwrap();
    let daemon = Daemon::start(&scratch, &simulator, &format!("{IMPATIENT}{BRISK}")).await;
    scratch.request(&simulator, 5).await;
    daemon.until("the call is under way", async || simulator.ledger().len() == 5).await;
    server.kill9();
    daemon.until_logged("could not be recorded yet").await;
    server.start().await;
    daemon.until_all_ended(&scratch).await;
    assert_eq!(by_bucket(&scratch).await, "successful|5");
    assert_eq!((simulator.requests().len(), devices_wiped(&simulator)), (1, 5));
    assert_eq!(scratch.rows("SELECT state, http_status FROM graph_calls").await, "answered|200");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_wait_while_the_server_is_away_go_once_it_is_back_and_the_log_says_each_once() {
    let server = OwnServer::start_new().await;
    let scratch = server.scratch().await;
    let simulator = Simulator::start(calm()).unwrap();
    let settings = format!("{IMPATIENT}{BRISK}[worker]\npoll_interval = \"100ms\"\n");
    let daemon = Daemon::start(&scratch, &simulator, &settings).await;
    let device = simulator.devices()[2].managed_device_id;
    scratch.rows(&format!(
        "INSERT INTO reprovision_requests (managed_device_id, not_before) VALUES ('{device}', now() + interval '3 seconds')"
    )).await;
    server.stop().await;
    daemon.until_logged("queue cannot be read").await;
    server.start().await;
    daemon.until_all_ended(&scratch).await;
    assert_eq!((by_bucket(&scratch).await.as_str(), devices_wiped(&simulator)), ("successful|1", 1));
    let said = (daemon.logged("queue cannot be read"), daemon.logged("the database is back"));
    assert_eq!(said, (1, 1), "{}", daemon.log().join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_without_the_server_ends_with_69_and_says_which_database_and_why() {
    let server = OwnServer::start_new().await;
    let scratch = server.scratch().await;
    let simulator = Simulator::start(calm()).unwrap();
    let network = Network::before(&scratch).await;
    let mut daemon = Daemon::migrated(&network.url(&scratch), &simulator, "").await;
    network.refuse().await;
    daemon.spawn(&simulator, &[]);
    assert_eq!(daemon.ended().await.code(), Some(69));
    daemon.until_logged("Connection refused").await;
    assert!(daemon.log().last().unwrap().contains(&network.url(&scratch)), "{:?}", daemon.log());

    // Reachable, and silent.
    let network = Network::before(&scratch).await;
    let mut daemon = Daemon::migrated(&network.url(&scratch), &simulator, IMPATIENT).await;
    network.fall_silent();
    daemon.spawn(&simulator, &[]);
    assert_eq!(daemon.ended().await.code(), Some(69));
    daemon.until_logged("no answer to a new connection within 1s").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_die_without_a_word_are_noticed_the_one_that_listens_too() {
    let scratch = Scratch::new(Backend::Postgres).await;
    let simulator = Simulator::start(calm()).unwrap();
    let network = Network::before(&scratch).await;
    let settings = format!("{IMPATIENT}{BRISK}[worker]\npoll_interval = \"1h\"\n");
    let daemon = Daemon::start_on(&network.url(&scratch), &simulator, &settings).await;
    scratch.request(&simulator, 5).await;
    daemon.until_all_ended(&scratch).await;
    network.lose_all_connections();
    daemon.until_logged("wake-ups are off").await;
    // Nobody polls within the hour: this is heard.
    let device = simulator.devices()[20].managed_device_id;
    scratch.rows(&format!("INSERT INTO reprovision_requests (managed_device_id) VALUES ('{device}')")).await;
    daemon.until_all_ended(&scratch).await;
    assert_eq!((by_bucket(&scratch).await.as_str(), devices_wiped(&simulator)), ("successful|6", 6));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_in_hand_outlasts_a_network_that_swallows_everything() {
    let scratch = Scratch::new(Backend::Postgres).await;
    let simulator = Simulator::start(calm()).unwrap();
    simulator.add_fault(Effect::Latency(Duration::from_millis(500))).unwrap();
    let network = Network::before(&scratch).await;
    let settings = format!("{IMPATIENT}{BRISK}[worker]\npoll_interval = \"100ms\"\n");
    let daemon = Daemon::start_on(&network.url(&scratch), &simulator, &settings).await;
    scratch.request(&simulator, 5).await;
    daemon.until("the call is under way", async || simulator.ledger().len() == 5).await;
    network.fall_silent();
    daemon.until_logged("could not be recorded yet").await;
    daemon.until_logged("queue cannot be read").await;
    network.lose_all_connections();
    daemon.until_all_ended(&scratch).await;
    daemon.until_logged("the database is back").await;
    assert_eq!((by_bucket(&scratch).await.as_str(), devices_wiped(&simulator)), ("successful|5", 5));
    assert_eq!(daemon.logged("could not be recorded yet"), 1, "{}", daemon.log().join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_while_the_database_is_away_ends_with_0_and_says_what_is_left() {
    let scratch = Scratch::new(Backend::Postgres).await;
    let simulator = Simulator::start(calm()).unwrap();
    simulator.add_fault(Effect::Latency(Duration::from_millis(500))).unwrap();
    let network = Network::before(&scratch).await;
    let settings = format!("{IMPATIENT}{BRISK}[worker]\npoll_interval = \"100ms\"\ndrain_timeout = \"500ms\"\n");
    let mut daemon = Daemon::start_on(&network.url(&scratch), &simulator, &settings).await;
    scratch.request(&simulator, 5).await;
    daemon.until("the call is under way", async || simulator.ledger().len() == 5).await;
    network.fall_silent();
    daemon.until_logged("could not be recorded yet").await;
    assert_eq!(daemon.stop().await.code(), Some(0), "{}", daemon.log().join("\n"));
    daemon.until_logged("stopped without the database").await;
    let left = daemon.log().into_iter().find(|line| line.contains("stopped without the database")).unwrap();
    assert!(left.contains("\"calls\":1"), "{left}");
    // What it left is in doubt after the next start, and not sent again.
    network.lose_all_connections();
    daemon.run(&simulator).await;
    assert_eq!(scratch.rows("SELECT state, count(*) FROM reprovision_queue GROUP BY state").await, "unknown|5");
    assert_eq!(devices_wiped(&simulator), 5);
}
