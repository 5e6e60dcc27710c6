//! Several answers in one commit, and what refusals for the rate teach.

use std::time::Duration;

use reprovisiond::simulator::{Options, Simulator};

use crate::support::{BRISK, Backend, Daemon, calm, on_both};

/// A call for each device, all of them under way at once.
const SINGLE: &str = "[batch]\nmax_devices = 1\n[worker]\nmax_calls_in_flight = 8\n";

on_both! {
    async fn an_answer_that_the_database_refuses_is_kept_and_holds_up_no_other(scratch: Scratch) {
        let simulator = Simulator::start(Options { latency: Duration::from_millis(300), ..calm() }).unwrap();
        let device = simulator.devices()[2].managed_device_id;
        let daemon = Daemon::start(&scratch, &simulator, &format!("{BRISK}{SINGLE}")).await;
        let refused = format!("NEW.managed_device_id = '{device}'");
        scratch.rows(&match scratch.backend() {
            Backend::Sqlite => format!("CREATE TRIGGER refuse BEFORE INSERT ON device_results WHEN {refused} BEGIN SELECT RAISE(ABORT, 'a test wants it so'); END"),
            Backend::Postgres => format!("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE check_violation USING MESSAGE = 'a test wants it so'; END $$;
                CREATE TRIGGER refuse BEFORE INSERT ON device_results FOR EACH ROW WHEN ({refused}) EXECUTE FUNCTION refuse()"),
        }).await;
        scratch.request(&simulator, 8).await;
        daemon.until_rows(&scratch, "SELECT count(*) FROM device_results WHERE bucket = 'successful'", "7").await;
        daemon.until_logged("could not be recorded yet").await;
        assert_eq!((daemon.logged("could not be recorded yet"), daemon.logged("a test wants it so")), (1, 1), "{}", daemon.log().join("\n"));
        assert_eq!(daemon.logged("the queue cannot be read"), 0);
        let on_its_table = if scratch.backend() == Backend::Postgres { " ON device_results" } else { "" };
        scratch.rows(&format!("DROP TRIGGER refuse{on_its_table}")).await;
        daemon.until_all_ended(&scratch).await;
        daemon.until_logged("the answer is recorded").await;
        assert_eq!(simulator.ledger().len(), 8, "each device is reprovisioned once");
    }

    async fn the_first_calls_go_as_soon_as_their_token_has_come(scratch: Scratch) {
        let simulator = Simulator::start(calm()).unwrap();
        let mut daemon = Daemon::migrated(&scratch.url, &simulator, "[worker]\npoll_interval = \"1h\"\n").await;
        scratch.request(&simulator, 3).await;
        daemon.run(&simulator).await;
        daemon.until_all_ended(&scratch).await;
        assert_eq!(simulator.ledger().len(), 3);
    }

    async fn after_a_429_the_rate_is_lowered_once_for_all_workers(scratch: Scratch) {
        // Both are under way when the first is refused.
        let faults = "429:1@1,429:1@2".parse().unwrap();
        let simulator = Simulator::start(Options { faults, latency: Duration::from_millis(500), ..calm() }).unwrap();
        let daemon = Daemon::start(&scratch, &simulator, &format!("{BRISK}{SINGLE}[limits]\ncalls_per_period = 1000\n")).await;
        scratch.request(&simulator, 2).await;
        daemon.until_all_ended(&scratch).await;
        assert_eq!(scratch.rows("SELECT pace FROM tenants").await, "950");
        assert_eq!(daemon.logged("Graph has refused calls for their rate"), 1);
        assert_eq!((simulator.requests().len(), simulator.ledger().len()), (4, 2));
    }
}
