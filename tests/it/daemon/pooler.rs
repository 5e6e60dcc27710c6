//! PgBouncer in transaction mode: each transaction may meet another connection, and nothing of a session lasts.

use std::collections::HashSet;

use reprovisiond::simulator::Simulator;

use crate::support::{BRISK, Backend, Bouncer, Daemon, Scratch, calm};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_daemons_behind_pgbouncer_send_each_request_once_and_leave_nothing_in_the_connections() {
    let scratch = Scratch::new(Backend::Postgres).await;
    let bouncer = Bouncer::before(&scratch);
    let simulator = Simulator::start(calm()).unwrap();
    let url = format!("{}&statement-cache-capacity=0", bouncer.url(&scratch));
    let settings = format!("{BRISK}[worker]\npoll_interval = \"100ms\"\n[batch]\nmax_devices = 20\n");
    bouncer.until_up().await;
    let one = Daemon::start_on(&url, &simulator, &settings).await;
    let other = Daemon::start_on(&url, &simulator, &settings).await;
    one.until_logged("only polling").await;
    scratch.request(&simulator, 400).await;
    one.until_all_ended(&scratch).await;

    let finals = "SELECT bucket, count(*), count(DISTINCT request_id) FROM device_results WHERE final GROUP BY bucket";
    assert_eq!(scratch.rows(finals).await, "successful|400|400", "{}", bouncer.log());
    let wiped: Vec<_> = simulator.ledger().iter().map(|entry| entry.managed_device_id).collect();
    assert_eq!((wiped.len(), wiped.iter().collect::<HashSet<_>>().len()), (400, 400));
    for daemon in [&one, &other] {
        assert_eq!(daemon.logged("\"ERROR\""), 0, "{}", daemon.log().join("\n"));
    }
    // Seen through the pooler: whoever gets these connections next finds them as they were.
    let left = "SELECT (SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_listening_channels()),
                       (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())),
                       current_setting('lock_timeout')";
    drop((one, other));
    assert_eq!(bouncer.rows(&scratch, left).await, "0|0|0|0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_setting_the_daemon_names_it() {
    let scratch = Scratch::new(Backend::Postgres).await;
    let bouncer = Bouncer::before(&scratch);
    let simulator = Simulator::start(calm()).unwrap();
    bouncer.until_up().await;
    // Names that somebody else has left on a connection.
    let prepare = (1..20).map(|n| format!("PREPARE sqlx_s_{n} AS SELECT 1;")).collect::<Vec<_>>().concat();
    let mut daemon =
        Daemon::migrated(&format!("{}&statement-cache-capacity=0", bouncer.url(&scratch)), &simulator, "").await;
    tokio::join!(bouncer.rows(&scratch, &prepare), bouncer.rows(&scratch, "SELECT 1"));
    daemon.reconfigure(|text| text.replace("&statement-cache-capacity=0", ""));
    daemon.spawn(&simulator, &[]);
    // At its start or later, as the pooler gives it connections.
    daemon.until_logged("add statement-cache-capacity=0").await;
}
