//! What became of accepted reprovisions: followed to their end beside the queue, within a budget, by whatever process lives.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use reprovisiond::simulator::{Behaviour, Options, Pace, Shares, Simulator};
use rustix::process::Signal;

use crate::support::{BRISK, Daemon, Scratch, calm, judge, on_both};

/// Follows and looks often, so that a test ends soon; ends in `[completion]`, so that more of its keys can follow.
fn follows(more: &str) -> String {
    format!(
        "{BRISK}\n[reconcile]\nclock_margin = \"30m\"\n[graph]\ncall_timeout = \"20s\"\n[completion]\ntrack = true\n\
         first_after = \"100ms\"\nshortest_delay = \"100ms\"\nlongest_delay = \"200ms\"\n{more}\n"
    )
}

/// A budget that no test reaches.
const PLENTY: &str = "reads_per_period = 1000000\nperiod = \"1s\"";

fn takes(active: Duration) -> Options {
    Options { pace: Pace { pending: Duration::ZERO, active, read_back_lag: Duration::ZERO }, ..calm() }
}

const ENDED: &str = "SELECT count(*) FROM completions";
const FOLLOWED: &str = "SELECT count(*) FROM completion_watches";
const DONE: &str = "SELECT state, took_seconds, count(*) FROM completions GROUP BY 1, 2";
/// Reads that have been charged to the budget.
const LOOKS: &str = "SELECT coalesce(sum(looks), 0) FROM (SELECT looks FROM completions UNION ALL SELECT looks FROM completion_watches) AS l";

/// The process ends at `boundary` with reprovisions in hand, and the next one goes on.
async fn dies_at(boundary: &str, scratch: &Scratch) {
    let simulator = Simulator::start(takes(Duration::ZERO)).unwrap();
    let mut daemon = Daemon::migrated(&scratch.url, &simulator, &follows(PLENTY)).await;
    scratch.request(&simulator, 12).await;
    for _ in 0..2 {
        daemon.launch(&simulator, &format!("{boundary}=return"));
        let end = daemon.ended().await.signal();
        assert_eq!(end, Some(Signal::ABORT.as_raw()), "{boundary}\n{}", daemon.log().join("\n"));
    }
    daemon.run(&simulator).await;
    daemon.until_all_ended(scratch).await;
    daemon.until_rows(scratch, ENDED, "12").await;
    assert_eq!(scratch.rows(DONE).await, "done|0|12");
    assert_eq!(scratch.rows(FOLLOWED).await, "0");
    daemon.stop().await;
    judge(scratch, &simulator, boundary).await;
}

on_both! {
    async fn every_accepted_device_ends_done_or_failed_as_graph_shows_it(scratch: Scratch) {
        let shares = Shares { fails_later: 0.3, fails: 0.1, ..Shares::NONE };
        let simulator = Simulator::start(Options { devices: 60, shares, ..takes(Duration::from_secs(1)) }).unwrap();
        let daemon = Daemon::start(&scratch, &simulator, &follows(PLENTY)).await;
        scratch.request(&simulator, 40).await;
        let of = |behaviour| -> BTreeSet<String> {
            let devices = simulator.devices().iter().skip(2).take(40).filter(|device| device.behaviour == behaviour);
            devices.map(|device| device.managed_device_id.to_string()).collect()
        };
        let (good, bad) = (of(Behaviour::Succeeds), of(Behaviour::FailsLater));
        assert!(!bad.is_empty() && good.len() + bad.len() < 40);
        daemon.until_rows(&scratch, ENDED, &(good.len() + bad.len()).to_string()).await;
        let devices = async |state: &str| -> BTreeSet<String> {
            scratch.rows(&format!("SELECT managed_device_id FROM completions WHERE state = '{state}'")).await.lines().map(str::to_owned).collect()
        };
        assert_eq!(devices("done").await, good);
        assert_eq!(devices("failed").await, bad);
        let told = "SELECT DISTINCT completion, took_seconds, completion_detail FROM request_status WHERE state = 'successful' ORDER BY 1";
        assert_eq!(scratch.rows(told).await, "done|1|\nfailed|1|internalServerError: The Cloud PC could not be provisioned.");
        // A result stays what it was: Graph accepted it.
        assert_eq!(scratch.rows("SELECT count(*) FROM device_results WHERE bucket = 'failed'").await, (40 - good.len() - bad.len()).to_string());
        daemon.until_logged("did not all end well").await;
        assert_eq!(scratch.rows(FOLLOWED).await, "0");
    }

    async fn a_killed_daemons_reprovisions_are_followed_on_by_the_next(scratch: Scratch) {
        let simulator = Simulator::start(takes(Duration::from_mins(10))).unwrap();
        let mut daemon = Daemon::start(&scratch, &simulator, &follows(PLENTY)).await;
        scratch.request(&simulator, 10).await;
        daemon.until_rows(&scratch, "SELECT count(*) FROM completion_watches WHERE looks > 1", "10").await;
        daemon.signal(Signal::KILL);
        daemon.ended().await;
        assert_eq!(scratch.rows(ENDED).await, "0");
        simulator.advance(Duration::from_mins(10));
        daemon.run(&simulator).await;
        daemon.until_rows(&scratch, ENDED, "10").await;
        assert_eq!(scratch.rows(DONE).await, "done|600|10");
    }

    async fn dying_after_the_claim_loses_nothing(scratch: Scratch) {
        dies_at("after-claim-of-completions", &scratch).await;
    }

    async fn dying_before_the_record_loses_nothing(scratch: Scratch) {
        dies_at("before-completion", &scratch).await;
    }

    async fn dying_after_the_record_records_nothing_twice(scratch: Scratch) {
        dies_at("after-completion", &scratch).await;
    }

    async fn two_workers_follow_together_and_record_each_end_once(scratch: Scratch) {
        let simulator = Simulator::start(takes(Duration::from_millis(300))).unwrap();
        let daemon = Daemon::start(&scratch, &simulator, &format!("[batch]\nmax_devices = 5\n{}", follows(PLENTY))).await;
        let other = daemon.beside(&simulator).await;
        scratch.request(&simulator, 60).await;
        daemon.until_rows(&scratch, ENDED, "60").await;
        assert_eq!(scratch.rows("SELECT count(DISTINCT request_id), count(*) FROM completions WHERE state = 'done'").await, "60|60");
        for daemon in [daemon, other] {
            assert!(!daemon.log().iter().any(|line| line.contains("\"ERROR\"") || line.contains("cannot be followed")), "{}", daemon.log().join("\n"));
        }
    }

    async fn a_read_back_that_hangs_delays_no_request(scratch: Scratch) {
        let simulator = Simulator::start(Options { faults: "read-back/hang@*".parse().unwrap(), ..takes(Duration::ZERO) }).unwrap();
        let daemon = Daemon::start(&scratch, &simulator, &format!("{}\n[worker]\nmax_calls_in_flight = 1\n", follows(PLENTY))).await;
        scratch.request(&simulator, 20).await;
        // As many reads as are ever under way at once hang.
        daemon.until_rows(&scratch, LOOKS, "8").await;
        scratch.request_after(&simulator, 20, 100).await;
        daemon.until_all_ended(&scratch).await;
        assert_eq!(scratch.rows(ENDED).await, "0");
        assert_eq!(simulator.ledger().len(), 120);
    }

    async fn a_tenant_whose_graph_cannot_be_read_delays_no_others(scratch: Scratch) {
        let hangs = Simulator::start(Options { faults: "read-back/hang@*".parse().unwrap(), ..takes(Duration::ZERO) }).unwrap();
        let works = Simulator::start(Options { seed: 2, ..takes(Duration::ZERO) }).unwrap();
        let mut daemon = Daemon::migrated(&scratch.url, &hangs, &follows(PLENTY)).await;
        daemon.reconfigure(|toml| {
            format!(
                "{toml}\n[tenants.other]\ncloud = \"custom\"\ngraph_url = {:?}\nauthority_url = {:?}\ntenant_id = \"{}\"\nclient_id = \"{}\"\nclient_secret_file = \"{}\"\n",
                works.graph_url(),
                works.authority_url(),
                works.tenant_id(),
                works.client_id(),
                works.client_secret_file().display()
            )
        });
        daemon.run(&hangs).await;
        scratch.request(&hangs, 20).await;
        daemon.until_rows(&scratch, LOOKS, "8").await;
        let rows: Vec<String> =
            works.devices().iter().skip(2).take(20).map(|device| format!("('other', '{}')", device.managed_device_id)).collect();
        scratch.rows(&format!("INSERT INTO reprovision_requests (tenant, managed_device_id) VALUES {}", rows.join(","))).await;
        daemon.until_rows(&scratch, "SELECT tenant, state, count(*) FROM completions GROUP BY 1, 2", "other|done|20").await;
    }

    async fn the_budget_of_reads_is_kept(scratch: Scratch) {
        // Three at once, the next minutes later; and Graph would complain of any more.
        let faults = "read-back/503@4-1000".parse().unwrap();
        let simulator = Simulator::start(Options { faults, ..takes(Duration::ZERO) }).unwrap();
        let daemon = Daemon::start(&scratch, &simulator, &follows("reads_per_period = 30\nperiod = \"1h\"")).await;
        scratch.request(&simulator, 20).await;
        daemon.until_rows(&scratch, ENDED, "3").await;
        let other = daemon.beside(&simulator).await;
        scratch.request_after(&simulator, 20, 20).await;
        daemon.until_rows(&scratch, FOLLOWED, "37").await;
        assert_eq!(scratch.rows(LOOKS).await, "3");
        for daemon in [daemon, other] {
            assert_eq!(daemon.logged("could not be read"), 0, "{}", daemon.log().join("\n"));
        }
    }

    async fn a_retry_after_of_a_read_holds_for_all_reads_and_for_no_call(scratch: Scratch) {
        let simulator = Simulator::start(Options { faults: "read-back/429:3600@1".parse().unwrap(), ..takes(Duration::ZERO) }).unwrap();
        let daemon = Daemon::start(&scratch, &simulator, &follows(PLENTY)).await;
        scratch.request(&simulator, 20).await;
        daemon.until_rows(&scratch, "SELECT count(*) FROM completion_tenants WHERE wait_until IS NOT NULL", "1").await;
        let looks = scratch.rows(LOOKS).await;
        assert!(looks.parse::<u32>().unwrap() <= 8, "{looks}");
        scratch.request_after(&simulator, 20, 20).await;
        daemon.until_rows(&scratch, "SELECT count(*) FROM device_results WHERE final", "40").await;
        assert_eq!(scratch.rows(LOOKS).await, looks);
    }

    async fn what_cannot_be_read_is_untracked_in_the_end_and_says_why(scratch: Scratch) {
        let simulator = Simulator::start(Options { faults: "read-back/403@*".parse().unwrap(), ..takes(Duration::ZERO) }).unwrap();
        let daemon = Daemon::start(&scratch, &simulator, &follows(&format!("{PLENTY}\ngive_up_after = \"1s\""))).await;
        scratch.request(&simulator, 5).await;
        daemon.until_rows(&scratch, ENDED, "5").await;
        let why = "SELECT DISTINCT state, detail FROM completions";
        let why = scratch.rows(why).await;
        assert!(why.starts_with("untracked|given up ") && why.contains(": nothing could be read back: HTTP 403"), "{why}");
        assert_eq!(daemon.logged("could not be read"), 1, "{}", daemon.log().join("\n"));
    }

    async fn turned_off_what_was_followed_is_recorded_as_untracked_and_nothing_new_is_followed(scratch: Scratch) {
        let simulator = Simulator::start(takes(Duration::from_hours(1))).unwrap();
        let mut daemon = Daemon::start(&scratch, &simulator, &follows(PLENTY)).await;
        scratch.request(&simulator, 5).await;
        daemon.until_rows(&scratch, FOLLOWED, "5").await;
        daemon.stop().await;
        daemon.reconfigure(|toml| toml.replace("track = true", "track = false"));
        daemon.run(&simulator).await;
        assert_eq!(daemon.logged("completion.track is off"), 1);
        assert_eq!(scratch.rows("SELECT state, detail, count(*) FROM completions GROUP BY 1, 2").await, "untracked|completion.track was turned off before its end was shown|5");
        scratch.request_after(&simulator, 5, 5).await;
        daemon.until_all_ended(&scratch).await;
        assert_eq!((scratch.rows(FOLLOWED).await, scratch.rows(ENDED).await), ("0".to_owned(), "5".to_owned()));
    }
}
