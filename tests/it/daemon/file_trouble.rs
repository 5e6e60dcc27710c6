//! A SQLite file that is locked, that cannot grow, or that may not be written.

use std::time::Duration;

use reprovisiond::simulator::{Effect, Simulator};
use sqlx::{Connection, Executor, SqliteConnection};

use crate::support::{BRISK, Backend, Daemon, Scratch, calm};

const IMPATIENT: &str = "database.patience = \"1s\"\n";

/// The daemon with one call of five devices under way, whose answer comes after a second.
async fn with_a_call_under_way(scratch: &Scratch, simulator: &Simulator, under: &[&str]) -> Daemon {
    simulator.add_fault(Effect::Latency(Duration::from_secs(1))).unwrap();
    let mut daemon = Daemon::migrated(&scratch.url, simulator, &format!("{IMPATIENT}{BRISK}")).await;
    daemon.spawn(simulator, under);
    daemon.until_logged("\"started\"").await;
    scratch.request(simulator, 5).await;
    daemon.until("the call is under way", async || simulator.ledger().len() == 5).await;
    daemon
}

async fn ended_once_each(daemon: &Daemon, scratch: &Scratch, simulator: &Simulator) {
    daemon.until_all_ended(scratch).await;
    let finals = "SELECT bucket, count(*) FROM device_results WHERE final GROUP BY bucket";
    assert_eq!(scratch.rows(finals).await, "successful|5");
    assert_eq!((simulator.requests().len(), simulator.ledger().len()), (1, 5));
    assert_eq!(daemon.logged("could not be recorded yet"), 1, "{}", daemon.log().join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_kept_while_another_process_holds_the_write_lock() {
    let scratch = Scratch::new(Backend::Sqlite).await;
    let simulator = Simulator::start(calm()).unwrap();
    let daemon = with_a_call_under_way(&scratch, &simulator, &[]).await;
    let mut other = SqliteConnection::connect(&scratch.url).await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    daemon.until_logged("could not be recorded yet").await;
    assert_eq!(daemon.logged("another process holds the file's write lock"), 1, "{}", daemon.log().join("\n"));
    other.execute("ROLLBACK").await.unwrap();
    ended_once_each(&daemon, &scratch, &simulator).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_kept_while_the_disk_takes_no_more() {
    let scratch = Scratch::new(Backend::Sqlite).await;
    let simulator = Simulator::start(calm()).unwrap();
    // The signal's default would end the process; ignored, a write beyond the limit fails as on a full disk.
    let under = ["sh", "-c", "trap '' XFSZ; exec \"$@\"", "sh"];
    let daemon = with_a_call_under_way(&scratch, &simulator, &under).await;
    limit_file_size(&daemon, "1024").await;
    daemon.until_logged("could not be recorded yet").await;
    assert!(daemon.log().iter().any(|line| line.contains("stops SQLite")), "{}", daemon.log().join("\n"));
    limit_file_size(&daemon, "unlimited").await;
    ended_once_each(&daemon, &scratch, &simulator).await;
}

async fn limit_file_size(daemon: &Daemon, bytes: &str) {
    let mut prlimit = tokio::process::Command::new("prlimit");
    prlimit.arg(format!("--pid={}", daemon.child.id().unwrap())).arg(format!("--fsize={bytes}:unlimited"));
    assert!(prlimit.status().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_on_a_file_that_may_not_be_written_ends_with_77_and_says_which_and_what_to_do() {
    let scratch = Scratch::new(Backend::Sqlite).await;
    let simulator = Simulator::start(calm()).unwrap();
    let mut daemon = Daemon::migrated(&scratch.url, &simulator, "").await;
    let read_only = std::os::unix::fs::PermissionsExt::from_mode(0o444);
    std::fs::set_permissions(scratch.file(), read_only).unwrap();
    // To root permissions mean nothing, unless it gives that up.
    let root = rustix::process::geteuid().is_root();
    let under: &[&str] = if root { &["setpriv", "--bounding-set=-dac_override,-dac_read_search"] } else { &[] };
    daemon.spawn(&simulator, under);
    assert_eq!(daemon.ended().await.code(), Some(77));
    daemon.until_logged("must be writable for this user").await;
    assert!(daemon.log().last().unwrap().contains(&scratch.url), "{:?}", daemon.log());
}
