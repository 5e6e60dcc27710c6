//! What the pure parts cost, in instructions: no other program on the machine changes that. Counted by callgrind, which is a part of
//! Debian's package `valgrind`.
//!
//! ```sh
//! cargo bench -- instructions
//! ```

use std::hint::black_box;
use std::process::Command;
use std::time::Duration;

use chrono::DateTime;
use clap::{Args, ValueEnum};
use reprovisiond::domain::action::Action;
use reprovisiond::domain::answer::{Body, BucketLists, Exchange, HttpAnswer, meaning};
use reprovisiond::domain::id::{CallId, ManagedDeviceId, RequestId};
use reprovisiond::domain::plan::{Bounds, Entry, Snapshot, TenantState, plan};
use reprovisiond::domain::rate::Rate;
use reprovisiond::domain::retry::{Ended, RetryPolicy, Sent, verdict};

use crate::support::report::{Goal, Report};

/// Devices a call, and calls a plan.
const DEVICES: usize = 100;
const CALLS: usize = 16;

#[derive(Args)]
pub struct Arguments {
    /// Runs one part once, and counts nothing: for callgrind
    #[arg(long)]
    part: Option<Part>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Which entries form which call
    Plan,
    /// What an answer means
    Meaning,
    /// What becomes of each entry, the call and the tenant
    Verdict,
}

pub fn run(arguments: &Arguments) {
    if let Some(part) = arguments.part {
        return once(part);
    }
    let mut report = Report::new("instructions");
    for part in Part::value_variants() {
        let name = part.to_possible_value().unwrap();
        let devices = if *part == Part::Plan { CALLS * DEVICES } else { DEVICES };
        let each = collected(name.get_name()) / devices as f64;
        report.value(
            "",
            format!("{}: {}", name.get_name(), name.get_help().unwrap()),
            "instructions/device",
            &[each],
            Goal::None,
        );
    }
    report.end();
}

/// What callgrind counts within [`counted`].
fn collected(part: &str) -> f64 {
    let run = Command::new("valgrind")
        .args([
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            "--collect-atstart=no",
            "--toggle-collect=*counted*",
        ])
        .arg(std::env::current_exe().unwrap())
        .args(["instructions", "--part", part])
        .output()
        .unwrap_or_else(|error| panic!("valgrind: {error}; Debian's package valgrind has it"));
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    let line = said.lines().find_map(|line| line.split_once("Collected : ")).unwrap_or_else(|| panic!("{said}")).1;
    let count: f64 = line.trim().parse().unwrap();
    assert!(count > 0.0, "nothing was counted: {said}");
    count
}

/// Callgrind knows it by its name.
#[inline(never)]
fn counted<T>(part: impl FnOnce() -> T) -> T {
    black_box(part())
}

fn once(part: Part) {
    let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    let device = |n: usize| ManagedDeviceId::try_from(uuid::Uuid::from_u128(n as u128 + 1)).unwrap();
    let action = Action::BulkReprovisionCloudPc;
    let devices: Vec<ManagedDeviceId> = (0..DEVICES).map(device).collect();
    if part == Part::Plan {
        let entry = |n| Entry {
            request_id: RequestId(i64::try_from(n).unwrap()),
            device: device(n),
            due_at: now,
            expires_at: None,
            attempts: 0,
            max_batch: None,
        };
        let entries = (0..CALLS * DEVICES).map(entry).collect();
        let bounds = Bounds {
            free_slots: CALLS,
            max_devices: DEVICES,
            linger: Duration::ZERO,
            open_doubts: 2,
            rate: Rate { calls: 1_000_000, period: Duration::from_secs(1) },
            action,
        };
        let snapshot = Snapshot { now, tenant: TenantState::default(), entries };
        let planned = counted(|| plan(snapshot, &bounds, &|_| false));
        assert_eq!(planned.calls.len(), CALLS);
        return;
    }
    let successful = devices.iter().map(ToString::to_string).collect();
    let body = Body::Buckets(BucketLists { successful, ..BucketLists::default() });
    let exchange = Exchange::Answered(HttpAnswer { status: 200, retry_after: None, date: None, error: None, body });
    let understood = || meaning(&exchange, action, &devices, false, now);
    if part == Part::Meaning {
        counted(understood);
        return;
    }
    let sent: Vec<Sent> = (0..DEVICES)
        .map(|n| Sent { request_id: RequestId(i64::try_from(n).unwrap()), attempts: 0, expires_at: None })
        .collect();
    let ended = Ended { call_id: CallId::fresh(), sent: &sent, waits_in_a_row: 0, asks_to_wait: None, now };
    let policy = RetryPolicy { max_attempts: 3, retry_failed: false, blocked_probe_interval: Duration::from_mins(1) };
    let meant = understood();
    let recording = counted(|| verdict(meant, &ended, &policy, &mut |_| Duration::ZERO));
    assert_eq!(recording.entries.len(), DEVICES);
}
