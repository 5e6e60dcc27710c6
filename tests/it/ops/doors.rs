//! Who is let in: this host, for reading.

use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::time::Duration;

use reprovisiond::simulator::Simulator;
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use super::{Watched, ask, exchange, get};
use crate::support::{BRISK, Backend, Daemon, Scratch, calm, on_both};

const PATHS: [&str; 7] = ["/", "/device", "/device.csv", "/results.csv", "/healthz", "/metrics", "/nowhere"];

async fn sqlite() -> Scratch {
    Scratch::new(Backend::Sqlite).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_but_reading_and_no_name_but_this_hosts() {
    let (scratch, simulator) = (sqlite().await, Simulator::start(calm()).unwrap());
    let watched = Watched::start(&scratch, &simulator, BRISK).await;
    let at = &watched.address;
    for path in PATHS {
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            let request =
                format!("{method} {path} HTTP/1.1\r\nHost: {at}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            let answer = ask(at, &request).await;
            assert_eq!((answer.status, answer.headers["allow"].as_str()), (405, "GET, HEAD"), "{method} {path}");
        }
        for host in ["evil.example", "evil.example:9464", "127.0.0.1.evil.example", "192.0.2.1", ""] {
            let answer = ask(at, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await;
            assert_eq!(answer.status, 421, "{host} {path}");
        }
        let answer = ask(at, &format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")).await;
        assert!(answer.body.is_empty(), "{path}");
        for (name, part) in [
            ("content-security-policy", "default-src 'none'"),
            ("content-security-policy", "frame-ancestors 'none'"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
        ] {
            assert!(answer.headers[name].contains(part), "{path}: {name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_place_for_others_is_refused_at_the_start() {
    let (scratch, simulator) = (sqlite().await, Simulator::start(calm()).unwrap());
    let settings = "[ops]\nlisten = \"0.0.0.0:9464\"\n";
    let mut daemon = Daemon::migrated(&scratch.url, &simulator, settings).await;
    daemon.launch(&simulator, "");
    assert_eq!(daemon.ended().await.code(), Some(78));
    daemon.until_logged("not a loopback address").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_is_for_its_group_and_a_stale_one_is_replaced_but_no_living_one() {
    let (scratch, simulator) = (sqlite().await, Simulator::start(calm()).unwrap());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ops.sock");
    // Nobody listens any more, and its file is still there.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let settings = format!("[ops]\nlisten = \"unix:{}\"\n", path.display());
    let mut daemon = Daemon::start(&scratch, &simulator, &settings).await;
    let file = std::fs::metadata(&path).unwrap();
    assert!(file.file_type().is_socket());
    assert_eq!(file.permissions().mode() & 0o777, 0o660);
    let request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = exchange(UnixStream::connect(&path).await.unwrap(), request).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"));

    let mut other = Daemon::migrated(&scratch.url, &simulator, &settings).await;
    other.launch(&simulator, "");
    assert_eq!(other.ended().await.code(), Some(1));
    other.until_logged("in use by another process").await;
    let answer = exchange(UnixStream::connect(&path).await.unwrap(), request).await;
    assert_eq!(answer.status, 200, "the first still has it");
    assert!(daemon.stop().await.success());
    assert!(!path.exists(), "its socket goes with it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_clients_are_shut_out_and_others_are_served() {
    let (scratch, simulator) = (sqlite().await, Simulator::start(calm()).unwrap());
    let watched = Watched::start(&scratch, &simulator, BRISK).await;
    let mut slow = Vec::new();
    // More than are let in at once.
    for _ in 0..40 {
        let mut stream = TcpStream::connect(&watched.address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHo").await.unwrap();
        slow.push(stream);
    }
    assert_eq!(watched.get("/healthz").await.status, 200);
    for mut stream in slow {
        let closed = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut Vec::new())).await;
        assert!(closed.is_ok(), "a request that never ends is not waited for");
    }
    let long = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(20_000));
    assert!(matches!(ask(&watched.address, &long).await.status, 414 | 431));
}

on_both! {
    async fn however_many_look_the_work_goes_on(scratch: Scratch) {
        let simulator = Simulator::start(calm()).unwrap();
        let watched = Watched::start(&scratch, &simulator, BRISK).await;
        let (address, looks) = (watched.address.clone(), std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0)));
        let mut readers = tokio::task::JoinSet::new();
        for path in ["/", "/metrics", "/results.csv", "/readyz"].iter().cycle().take(16) {
            let (address, looks) = (address.clone(), std::sync::Arc::clone(&looks));
            readers.spawn(async move {
                loop {
                    get(&address, path).await;
                    looks.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
            });
        }
        scratch.request(&simulator, 40).await;
        watched.daemon.until_all_ended(&scratch).await;
        watched.daemon.until("they have looked", async || looks.load(std::sync::atomic::Ordering::Relaxed) > 50).await;
        readers.shutdown().await;
        if scratch.backend() == Backend::Postgres {
            let theirs = "SELECT count(*) <= 8 FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'reprovisiond'";
            assert_eq!(scratch.rows(theirs).await, "t");
        }
    }
}

/// A lock that whoever reads the results waits for, as a long maintenance takes one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_waits_for_the_database_holds_up_no_call_and_is_given_up() {
    let scratch = Scratch::new(Backend::Postgres).await;
    let simulator = Simulator::start(calm()).unwrap();
    let watched = Watched::start(&scratch, &simulator, BRISK).await;
    let mut other = PgConnection::connect(&scratch.url).await.unwrap();
    other.execute("BEGIN; LOCK TABLE completions IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let page = tokio::spawn({
        let address = watched.address.clone();
        async move { get(&address, "/").await }
    });
    scratch.request(&simulator, 5).await;
    watched.daemon.until_rows(&scratch, "SELECT count(*) FROM device_results WHERE final", "5").await;
    assert_eq!(page.await.unwrap().status, 503, "nobody waits for ever");
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    watched.daemon.until_rows(&scratch, waiting, "0").await;
    other.execute("ROLLBACK").await.unwrap();
    watched.daemon.until("the page is back", async || watched.get("/").await.status == 200).await;
}
