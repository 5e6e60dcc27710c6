//! Every fault the simulator knows, and the state that is right after it.

use reprovisiond::simulator::{FaultScript, Options, Simulator};

use crate::support::{BRISK, Daemon, Scratch, calm, on_both};

const ALL_UNKNOWN: &str = "unknown=8";
const AS_NORMAL: &str = "successful=8";

/// A test for each fault: `NAME: FAULT => state of the first call, where the eight devices are then`. Calls that go again
/// meet no fault any more.
macro_rules! after_each_fault {
    ($($name:ident: $fault:literal => $call:literal, $devices:expr;)+) => {
        on_both! { $(async fn $name(scratch: Scratch) { one_fault(&scratch, $fault, $call, $devices).await; })+ }
    };
}

after_each_fault! {
    shape_wrapped: "shape:wrapped" => "answered", AS_NORMAL;
    shape_bare: "shape:bare" => "answered", AS_NORMAL;
    shape_empty: "shape:empty" => "unknown", ALL_UNKNOWN;
    upper_case: "upper-case" => "answered", AS_NORMAL;
    surplus_id: "surplus-id" => "answered", AS_NORMAL;
    null_empty_lists: "null-empty-lists" => "answered", AS_NORMAL;
    missing_empty_lists: "missing-empty-lists" => "answered", AS_NORMAL;
    null_lists: "null-lists" => "unknown", ALL_UNKNOWN;
    missing_lists: "missing-lists" => "unknown", ALL_UNKNOWN;
    empty: "empty" => "unknown", ALL_UNKNOWN;
    not_json: "not-json" => "unknown", ALL_UNKNOWN;
    truncated: "truncated" => "unknown", ALL_UNKNOWN;
    huge: "huge" => "unknown", ALL_UNKNOWN;
    wrong_type_string: "wrong-type:string" => "unknown", ALL_UNKNOWN;
    wrong_type_number: "wrong-type:number" => "unknown", ALL_UNKNOWN;
    wrong_type_array: "wrong-type:array" => "unknown", ALL_UNKNOWN;
    in_no_bucket: "in-no-bucket" => "answered", "successful=7 unknown=1";
    in_two_buckets: "in-two-buckets" => "answered", "successful=7 unknown=1";
    reset_before: "reset-before" => "unknown", ALL_UNKNOWN;
    reset_after: "reset-after" => "unknown", ALL_UNKNOWN;
    hang: "hang" => "unknown", ALL_UNKNOWN;
    hang_after: "hang-after" => "unknown", ALL_UNKNOWN;
    done_500: "done-500" => "unknown", ALL_UNKNOWN;
    done_502_bare: "done-502-bare" => "unknown", ALL_UNKNOWN;
    done_504_html: "done-504-html" => "unknown", ALL_UNKNOWN;
    status_503_bare: "503-bare" => "unknown", ALL_UNKNOWN;
    status_503_html: "503-html" => "unknown", ALL_UNKNOWN;
    status_500: "500" => "unknown", ALL_UNKNOWN;
    status_408: "408" => "unknown", ALL_UNKNOWN;
    status_503: "503" => "not_carried_out", AS_NORMAL;
    status_509: "509" => "not_carried_out", AS_NORMAL;
    status_429: "429" => "not_carried_out", AS_NORMAL;
    status_429_1: "429:1" => "not_carried_out", AS_NORMAL;
    status_429_date_in_1: "429:date+1" => "not_carried_out", AS_NORMAL;
    status_429_zero: "429:zero" => "not_carried_out", AS_NORMAL;
    status_429_negative: "429:negative" => "not_carried_out", AS_NORMAL;
    status_429_huge: "429:huge" => "not_carried_out", AS_NORMAL;
    status_429_garbage: "429:garbage" => "not_carried_out", AS_NORMAL;
    status_401: "401" => "not_carried_out", AS_NORMAL;
    status_400: "400" => "not_carried_out", AS_NORMAL;
    status_413: "413" => "not_carried_out", AS_NORMAL;
    status_422: "422" => "not_carried_out", AS_NORMAL;
    status_403: "403" => "not_carried_out", "queued=8";
    status_404: "404" => "not_carried_out", "queued=8";
    status_405: "405" => "not_carried_out", "queued=8";
    status_410: "410" => "not_carried_out", "queued=8";
    status_501: "501" => "not_carried_out", "queued=8";
    status_302: "302" => "not_carried_out", "queued=8";
    segment: "segment" => "not_carried_out", "queued=8";
}

/// Where the eight devices are, ended or pending.
const DEVICES: &str = "SELECT state, count(*) FROM request_status GROUP BY state ORDER BY state";

async fn one_fault(scratch: &Scratch, fault: &str, call: &str, devices: &str) {
    let options = Options { faults: fault.parse::<FaultScript>().unwrap(), ..calm() };
    let simulator = Simulator::start(options).unwrap();
    let mut daemon = Daemon::start(scratch, &simulator, &format!("[graph]\ncall_timeout = \"1s\"\n{BRISK}")).await;
    scratch.request(&simulator, 8).await;

    let first = "SELECT state FROM graph_calls ORDER BY id LIMIT 1";
    daemon.until_rows(scratch, first, call).await;
    daemon
        .until(&format!("{fault}: {devices}"), async || {
            let rows = scratch.rows(DEVICES).await;
            rows.replace('|', "=").replace('\n', " ") == devices
        })
        .await;
    let status = daemon.child.id().map(|id| std::fs::read_to_string(format!("/proc/{id}/status")).unwrap()).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim().trim_end_matches(" kB");
    assert!(peak.parse::<u64>().unwrap() < 120 * 1024, "{fault}: {peak} kB");
    assert_eq!(daemon.stop().await.code(), Some(0), "{fault}");
    // Whatever was answered: no device was wiped twice.
    let mut wiped: Vec<_> = simulator.ledger().into_iter().map(|entry| entry.managed_device_id).collect();
    let all = wiped.len();
    wiped.sort();
    wiped.dedup();
    assert_eq!(wiped.len(), all, "{fault}");
}

on_both! {
    async fn a_poison_id_ends_alone_as_failed_and_the_others_get_through(scratch: Scratch) {
        let simulator = Simulator::start(calm()).unwrap();
        let poison = simulator.devices()[40].managed_device_id;
        simulator.add_fault(format!("poison:{poison}@*").parse::<FaultScript>().unwrap().script.remove(0)).unwrap();
        let daemon = Daemon::start(&scratch, &simulator, BRISK).await;
        scratch.request(&simulator, 100).await;
        daemon.until_all_ended(&scratch).await;
        let failed = scratch.rows("SELECT managed_device_id, attempt, detail FROM device_results WHERE bucket = 'failed'").await;
        assert!(failed.starts_with(&format!("{poison}|1|HTTP 400")) && !failed.contains('\n'), "{failed}");
        // 100, 50, 25, 13, 7, 4, 2, 1: eight refusals at most.
        let refused = simulator.requests().iter().filter(|r| r.status == Some(400)).count();
        assert!(refused <= 8, "{refused}");
        assert_eq!(simulator.ledger().len(), 99);
    }
}
