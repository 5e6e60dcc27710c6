//! Who is let in: this host, for reading.

use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};

use reprovisiond::simulator::Simulator;
use tokio::net::UnixStream;

use super::{Watched, ask, exchange};
use crate::support::{BRISK, Backend, Daemon, Scratch, calm};

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
