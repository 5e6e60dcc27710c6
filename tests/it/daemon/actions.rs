//! The interfaces that replace the action: the same buckets, and no second wipe whatever is lost.

use std::time::Duration;

use reprovisiond::domain::action::Action;
use reprovisiond::simulator::{Behaviour, Device, Interface, Options, Pace, Simulator};
use rustix::process::Signal;

use crate::support::{BRISK, Daemon, SETTLES, calm, judge, on_both};

const SUCCESSORS: [Action; 2] = [Action::CloudPcBulkAction, Action::CloudPcReprovision];

/// These settings, with this action.
fn calling(action: Action, settings: &str) -> String {
    if settings.contains("[graph]\n") {
        settings.replace("[graph]\n", &format!("[graph]\naction = \"{action}\"\n"))
    } else {
        format!("[graph]\naction = \"{action}\"\n{settings}")
    }
}

/// Reprovisions begin at once, and a Cloud PC has another managed device afterwards: who looks for it by the old one finds
/// nothing.
fn forgetful() -> Options {
    let pace = Pace { pending: Duration::ZERO, active: Duration::ZERO, ..Pace::default() };
    Options { pace, new_ids: true, devices: 300, ..calm() }
}

fn device(n: u32) -> Device {
    let id = format!("5cd0e128-de93-41dc-89ec-{n:012}");
    Device::new(id.parse().unwrap(), Behaviour::Succeeds)
}

/// Devices by what they ended in, and by whose word.
const FINALS: &str =
    "SELECT bucket, source, attempt, count(*) FROM device_results WHERE final GROUP BY 1, 2, 3 ORDER BY 1, 2, 3";

/// Starts a daemon with this action on a simulator with these faults, asks for ten devices and waits for their end.
async fn ten(scratch: &crate::support::Scratch, action: Action, faults: &str) -> Simulator {
    let simulator = Simulator::start(Options { faults: faults.parse().unwrap(), ..forgetful() }).unwrap();
    let daemon = Daemon::start(scratch, &simulator, &calling(action, SETTLES)).await;
    scratch.request(&simulator, 10).await;
    daemon.until_all_ended(scratch).await;
    simulator
}

/// The same test on each of the successors: each body sees `action`.
macro_rules! each_successor {
    ($($name:ident: |$scratch:ident, $action:ident| $body:block)+) => {$(
        mod $name {
            use super::*;

            async fn with($scratch: crate::support::Scratch, $action: Action) $body

            on_both! {
                async fn bulk_action(scratch: Scratch) { with(scratch, SUCCESSORS[0]).await; }
                async fn batch(scratch: Scratch) { with(scratch, SUCCESSORS[1]).await; }
            }
        }
    )+};
}

each_successor! {
    each_behaviour_ends_in_the_bucket_that_the_first_action_gives_it: |scratch, action| {
        use Behaviour::{Fails, FailsLater, NotFound, NotSupported, Succeeds};
        let behaviours = [Succeeds, Fails, NotFound, NotSupported, FailsLater];
        // What fails later has not failed yet when it is asked for.
        let pace = Pace { active: Duration::from_hours(1), ..forgetful().pace };
        let fleet: Vec<Device> =
            (0..50).map(|n| Device { behaviour: behaviours[n as usize % 5], ..device(n) }).collect();
        let simulator = Simulator::start(Options { fleet: fleet.clone(), page_size: 7, pace, ..forgetful() }).unwrap();
        let daemon = Daemon::start(&scratch, &simulator, &calling(action, BRISK)).await;
        let rows: Vec<String> = fleet.iter().map(|device| format!("('{}')", device.managed_device_id)).collect();
        scratch.rows(&format!("INSERT INTO reprovision_requests (managed_device_id) VALUES {}", rows.join(","))).await;
        daemon.until_all_ended(&scratch).await;
        let said = scratch.rows("SELECT managed_device_id, bucket FROM device_results WHERE final ORDER BY 1").await;
        let expected = |device: &Device| match device.behaviour {
            Succeeds | FailsLater => "successful",
            Fails => "failed",
            NotFound => "not_found",
            NotSupported => "not_supported",
        };
        let expected: Vec<String> =
            fleet.iter().map(|device| format!("{}|{}", device.managed_device_id, expected(device))).collect();
        assert_eq!(said, expected.join("\n"));
        // What was asked of v1.0 is what Microsoft's schema has.
        assert!(crate::contract::check_recorded(&simulator) > 0);
        assert_eq!(simulator.ledger().len(), 20);
        let reasons = scratch.rows("SELECT count(*) FROM device_results WHERE bucket <> 'successful' AND detail IS NULL").await;
        assert_eq!(reasons, "0", "each says why");
    }

    a_lost_answer_is_settled_without_a_second_wipe_though_the_device_has_another_id_by_then: |scratch, action| {
        let simulator = ten(&scratch, action, "reset-after").await;
        assert_eq!(scratch.rows(FINALS).await, "successful|read_back|1|10");
        assert_eq!((simulator.requests().len(), simulator.ledger().len()), (1, 10));
        judge(&scratch, &simulator, "answer lost").await;
    }

    a_lost_request_is_sent_again_once_nothing_has_shown_for_the_settling_time: |scratch, action| {
        let simulator = ten(&scratch, action, "reset-before").await;
        assert_eq!(scratch.rows(FINALS).await, "successful|answer|2|10");
        assert_eq!(simulator.ledger().len(), 10);
        judge(&scratch, &simulator, "request lost").await;
    }

    an_answer_that_a_killed_daemon_did_not_wait_for_is_settled_by_the_next: |scratch, action| {
        let simulator = Simulator::start(Options { faults: "hang-after".parse().unwrap(), ..forgetful() }).unwrap();
        let mut daemon = Daemon::start(&scratch, &simulator, &calling(action, SETTLES)).await;
        scratch.request(&simulator, 10).await;
        daemon.until("the call is under way", async || simulator.ledger().len() == 10).await;
        daemon.signal(Signal::KILL);
        daemon.ended().await;
        // The setting has changed meanwhile: what was called is read back by what it was called with.
        daemon.reconfigure(|text| text.replace(action.as_str(), Action::BulkReprovisionCloudPc.as_str()));
        daemon.run(&simulator).await;
        daemon.until_all_ended(&scratch).await;
        assert_eq!(scratch.rows(FINALS).await, "successful|read_back|1|10");
        assert_eq!((simulator.requests().len(), simulator.ledger().len()), (1, 10));
        judge(&scratch, &simulator, "killed").await;
    }

    a_device_that_was_reprovisioned_is_not_found_by_its_old_id_and_not_wiped_again: |scratch, action| {
        let simulator = ten(&scratch, action, "").await;
        let daemon = Daemon::start(&scratch, &simulator, &calling(action, SETTLES)).await;
        scratch.request(&simulator, 10).await;
        daemon.until_all_ended(&scratch).await;
        assert_eq!(scratch.rows(FINALS).await, "not_found|answer|1|10\nsuccessful|answer|1|10");
        assert_eq!(simulator.ledger().len(), 10);
        let why = scratch.rows("SELECT count(*) FROM device_results WHERE detail LIKE '%Cloud PCs has this managed device ID%'").await;
        assert_eq!(why, "10");
    }

    an_id_that_several_cloud_pcs_have_is_refused_with_their_ids_and_none_is_wiped: |scratch, action| {
        let others = vec![uuid::Uuid::from_u128(7), uuid::Uuid::from_u128(8)];
        let fleet = vec![Device { more_cloud_pc_ids: others, ..device(1) }, Device { not_enrolled: true, ..device(2) }];
        let simulator = Simulator::start(Options { fleet, ..forgetful() }).unwrap();
        let daemon = Daemon::start(&scratch, &simulator, &calling(action, SETTLES)).await;
        let ids = [device(1), device(2)].map(|device| format!("('{}')", device.managed_device_id)).join(",");
        scratch.rows(&format!("INSERT INTO reprovision_requests (managed_device_id) VALUES {ids}")).await;
        daemon.until_all_ended(&scratch).await;
        let said = scratch.rows("SELECT bucket, detail FROM device_results WHERE final ORDER BY request_id").await;
        let (ambiguous, unknown) = said.split_once('\n').unwrap();
        assert!(ambiguous.starts_with("failed|3 Cloud PCs have this managed device ID (") && ambiguous.contains("-000000000007"), "{said}");
        assert!(unknown.starts_with("not_found|"), "{said}");
        assert!(simulator.ledger().is_empty() && simulator.requests().is_empty());
    }

    a_daemon_killed_while_it_only_looked_a_device_up_leaves_no_doubt: |scratch, action| {
        // The first reading is for the token's sake; the second, which hangs, is the look-up's.
        let simulator = Simulator::start(Options { faults: "list/hang@2".parse().unwrap(), page_size: 999, ..forgetful() }).unwrap();
        let settings = calling(action, SETTLES).replace("call_timeout = \"500ms\"", "call_timeout = \"5m\"").replace("settle_after = \"1s\"", "settle_after = \"10m\"").replace("give_up_after = \"30s\"", "give_up_after = \"20m\"");
        let mut daemon = Daemon::start(&scratch, &simulator, &settings).await;
        let stranger = device(1).managed_device_id;
        scratch.rows(&format!("INSERT INTO reprovision_requests (managed_device_id) VALUES ('{stranger}')")).await;
        let readings = || simulator.traffic().iter().filter(|read| read.method == "GET" && read.path.contains("cloudPCs")).count();
        daemon.until("the look-up hangs", async || readings() == 2).await;
        daemon.signal(Signal::KILL);
        daemon.ended().await;
        daemon.run(&simulator).await;
        // Long before anything has had time to settle.
        daemon.until_all_ended(&scratch).await;
        assert_eq!(scratch.rows("SELECT bucket, source FROM device_results WHERE final").await, "not_found|answer");
        assert!(simulator.requests().is_empty());
    }

    a_list_that_cannot_be_read_stops_no_tenant_for_good_and_blames_no_device: |scratch, action| {
        let faults = "list/500@1,list/429:1@2,list/reset-before@3,list/truncated@4,list/not-json@5,list/401@6";
        let simulator = ten(&scratch, action, faults).await;
        assert_eq!(scratch.rows(FINALS).await, "successful|answer|1|10");
        assert_eq!(simulator.ledger().len(), 10);
        judge(&scratch, &simulator, "list").await;
    }

    a_tenant_that_may_not_read_the_list_is_blocked_and_told_what_to_grant: |scratch, action| {
        let simulator = Simulator::start(Options { roles: Vec::new(), ..forgetful() }).unwrap();
        let daemon = Daemon::start(&scratch, &simulator, &calling(action, SETTLES)).await;
        scratch.request(&simulator, 10).await;
        daemon.until_rows(&scratch, "SELECT block_code FROM tenants", "forbidden").await;
        let reason = scratch.rows("SELECT block_reason FROM tenants").await;
        assert!(reason.contains("CloudPC.ReadWrite.All") && reason.contains("list of Cloud PCs"), "{reason}");
        assert_eq!(scratch.rows("SELECT state, count(*) FROM reprovision_queue GROUP BY 1").await, "queued|10");
    }
}

on_both! {
    async fn a_batch_throttled_in_part_ends_what_was_carried_out_and_sends_only_the_rest_again_after_its_wait(scratch: Scratch) {
        let options = Options { throttle: "6/1".parse().unwrap(), ..forgetful() };
        let simulator = Simulator::start(options).unwrap();
        let daemon = Daemon::start(&scratch, &simulator, &calling(SUCCESSORS[1], SETTLES)).await;
        scratch.request(&simulator, 20).await;
        daemon.until_all_ended(&scratch).await;
        assert_eq!(scratch.rows(FINALS).await, "successful|answer|1|20", "no attempt is charged for what was not carried out");
        assert_eq!(simulator.ledger().len(), 20);
        let calls = scratch.rows("SELECT count(*) > 1 FROM graph_calls").await;
        assert!(["1", "t"].contains(&calls.as_str()));
        judge(&scratch, &simulator, "throttled in part").await;
    }

    async fn a_tenant_in_which_the_first_action_is_gone_is_served_once_its_own_action_is_set(scratch: Scratch) {
        let options = Options { without: vec![Interface::BulkReprovisionCloudPc], ..forgetful() };
        let simulator = Simulator::start(options).unwrap();
        let mut daemon = Daemon::start(&scratch, &simulator, SETTLES).await;
        scratch.request(&simulator, 10).await;
        daemon.until_rows(&scratch, "SELECT block_code FROM tenants", "action_unavailable").await;
        let reason = scratch.rows("SELECT block_reason FROM tenants").await;
        assert!(reason.contains("bulk-reprovision-cloud-pc") && reason.contains("tenants.NAME.action"), "{reason}");
        assert!(daemon.stop().await.success());
        daemon.reconfigure(|text| format!("{text}action = \"cloud-pc-reprovision\"\n"));
        daemon.run(&simulator).await;
        daemon.until_all_ended(&scratch).await;
        assert_eq!(scratch.rows(FINALS).await, "successful|answer|1|10");
        assert_eq!(scratch.rows("SELECT DISTINCT action FROM graph_calls ORDER BY 1").await, "bulk-reprovision-cloud-pc\ncloud-pc-reprovision");
    }

    async fn a_bulk_action_that_stays_pending_is_not_in_doubt_and_ends_as_accepted(scratch: Scratch) {
        let pace = Pace { pending: Duration::from_hours(1), ..Pace::default() };
        let simulator = Simulator::start(Options { pace, ..forgetful() }).unwrap();
        let settings = calling(SUCCESSORS[0], SETTLES).replace("[worker]\n", "[batch]\nmax_devices = 10\n[worker]\n");
        let daemon = Daemon::start(&scratch, &simulator, &settings).await;
        scratch.request(&simulator, 50).await;
        daemon.until_all_ended(&scratch).await;
        assert_eq!(scratch.rows(FINALS).await, "successful|read_back|1|50");
        assert_eq!((simulator.requests().len(), simulator.ledger().len()), (5, 50), "all five were made: none held the next up");
        assert_eq!(scratch.rows("SELECT DISTINCT state FROM graph_calls").await, "answered");
        judge(&scratch, &simulator, "pending").await;
    }

    async fn one_tenant_whose_calls_hang_and_cannot_be_read_back_delays_no_other(scratch: Scratch) {
        let hanging = Simulator::start(Options { faults: "hang@*,read-back/hang@*".parse().unwrap(), ..forgetful() }).unwrap();
        let healthy = Simulator::start(forgetful()).unwrap();
        // A call may take longer than this test may: whoever waits for one fails it.
        let settings = "[graph]\ncall_timeout = \"5m\"\n[batch]\nmax_devices = 1\n[reconcile]\nsettle_after = \"10m\"\n[worker]\nmax_calls_in_flight = 2\n";
        let mut daemon = Daemon::migrated(&scratch.url, &hanging, settings).await;
        daemon.reconfigure(|text| {
            let (_, tenant) = text.split_once("[tenants.default]").unwrap();
            let other = tenant
                .replace(hanging.graph_url(), healthy.graph_url())
                .replace(&hanging.client_secret_file().display().to_string(), &healthy.client_secret_file().display().to_string());
            format!("{text}[tenants.other]{other}")
        });
        daemon.run(&hanging).await;
        scratch.request(&hanging, 10).await;
        daemon.until("both slots of the one are taken", async || hanging.requests().len() == 2).await;
        // Other devices than the one tenant's: one that is out is out for all.
        let rows: Vec<String> = healthy.devices().iter().skip(100).take(20).map(|d| format!("('other', '{}')", d.managed_device_id)).collect();
        scratch.rows(&format!("INSERT INTO reprovision_requests (tenant, managed_device_id) VALUES {}", rows.join(","))).await;
        daemon.until_rows(&scratch, "SELECT count(*) FROM device_results WHERE final AND tenant = 'other'", "20").await;
        assert_eq!(hanging.requests().len(), 2);
    }
}
