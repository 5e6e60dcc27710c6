//! The status as a page for people.

use crate::cli::render::Columns;
use crate::domain::printable::printable;
use crate::domain::span::between;
use crate::ops;
use crate::store::{Status, TenantStatus};

/// Characters of a reason that are shown.
const REASON: usize = 400;

/// The whole page.
pub(super) fn page(status: &Status) -> String {
    let mut page = headline(&needs(status));
    page.push('\n');
    page.push_str(&pending(status));
    let holds: Vec<String> =
        status.tenants.iter().flat_map(|tenant| holds(status, tenant)).chain(paused_alone(status)).collect();
    if !holds.is_empty() {
        page.push_str("\nWhat holds:\n");
        for line in holds {
            page.extend(["  ", line.as_str(), "\n"]);
        }
    }
    page.push('\n');
    page.push_str(&totals(status));
    page.push('\n');
    if let Some(table) = completions(status) {
        page.extend([table.as_str(), "\n"]);
    }
    page.push_str(&workers(status));
    page
}

/// What needs a person, a sentence each.
pub(super) fn needs(status: &Status) -> Vec<String> {
    ops::needs(status).iter().map(ToString::to_string).collect()
}

fn headline(needs: &[String]) -> String {
    match needs {
        [] => "Nothing needs you.\n".to_owned(),
        [one] => format!("1 thing needs you: {one}\n"),
        several => {
            let lines: Vec<String> = (1..).zip(several).map(|(n, need)| format!("  {n}. {need}")).collect();
            format!("{} things need you:\n{}\n", several.len(), lines.join("\n"))
        }
    }
}

/// What is pending, tenant by tenant.
fn pending(status: &Status) -> String {
    if status.tenants.is_empty() {
        return "No tenant is registered: run `reprovisiond migrate`.\n".to_owned();
    }
    let mut table =
        Columns::new(&["tenant", "ready", "waiting", "sending", "unknown", "held", "oldest ready", "next due"]);
    table.numbers(1..=5);
    for tenant in &status.tenants {
        table.row([
            tenant.tenant.clone(),
            tenant.ready.to_string(),
            tenant.waiting.to_string(),
            tenant.sending.to_string(),
            tenant.unknown.to_string(),
            tenant.held.to_string(),
            tenant.oldest_ready_at.map(|at| between(at, status.now)).unwrap_or_default(),
            tenant.next_due_at.map(|at| format!("in {}", between(status.now, at))).unwrap_or_default(),
        ]);
    }
    table.text()
}

/// Whatever keeps a tenant's requests from being sent, a line each.
fn holds(status: &Status, tenant: &TenantStatus) -> Vec<String> {
    let now = status.now;
    let name = printable(&tenant.tenant, 64);
    let because =
        |reason: Option<&str>| reason.map(|text| format!(": {}", printable(text, REASON))).unwrap_or_default();
    let mut lines = Vec::new();
    if let Some(since) = tenant.paused_at {
        let by = tenant.paused_by.as_deref().map(|by| format!(" by {}", printable(by, REASON))).unwrap_or_default();
        let reason = because(tenant.pause_reason.as_deref());
        lines.push(format!("{name}: paused {} ago{by}{reason}", between(since, now)));
    }
    if let Some(since) = tenant.blocked_at {
        let probe = match tenant.probe_at {
            Some(at) if at > now => format!("; one small call goes in {} to see whether it still is", between(now, at)),
            _ => String::new(),
        };
        let code = because(tenant.block_code.as_deref());
        lines.push(format!("{name}: blocked {} ago{code}{probe}", between(since, now)));
    }
    if let Some(until) = tenant.wait_until.filter(|until| *until > now) {
        let reason = because(tenant.wait_reason.as_deref());
        lines.push(format!("{name}: no call for another {}{reason}", between(now, until)));
    }
    if tenant.calls_in_doubt > 0 {
        let calls = if tenant.calls_in_doubt == 1 { "call" } else { "calls" };
        lines.push(format!(
            "{name}: {} {calls} in doubt; at limits.open_doubts of them, no further call is made until one is settled",
            tenant.calls_in_doubt
        ));
    }
    if tenant.cautious {
        lines.push(format!("{name}: cautious after a doubt; one small call at a time until one is answered"));
    }
    lines
}

/// What is paused by itself, whatever its tenant.
fn paused_alone(status: &Status) -> Option<String> {
    let devices = match status.paused_devices {
        0 => None,
        1 => Some("1 device".to_owned()),
        n => Some(format!("{n} devices")),
    };
    let parts: Vec<String> =
        devices.into_iter().chain((status.paused_requests > 0).then(|| requests(status.paused_requests))).collect();
    let one = status.paused_devices + status.paused_requests == 1;
    (!parts.is_empty()).then(|| format!("{} {} paused", parts.join(" and "), if one { "is" } else { "are" }))
}

/// Final results by bucket, tenant by tenant.
fn totals(status: &Status) -> String {
    if status.tenants.is_empty() {
        return String::new();
    }
    let mut table = Columns::new(&[
        "results",
        "successful",
        "failed",
        "not_found",
        "not_supported",
        "expired",
        "cancelled",
        "suppressed",
    ]);
    table.numbers(1..=7);
    for tenant in &status.tenants {
        let counts = [
            tenant.successful,
            tenant.failed,
            tenant.not_found,
            tenant.not_supported,
            tenant.expired,
            tenant.cancelled,
            tenant.suppressed,
        ];
        table.row(std::iter::once(tenant.tenant.clone()).chain(counts.map(|count| count.to_string())));
    }
    table.text()
}

/// What became of accepted reprovisions, of the tenants where any are followed or were.
fn completions(status: &Status) -> Option<String> {
    let mut table =
        Columns::new(&["completion", "followed", "done", "failed", "canceled", "not_supported", "untracked"]);
    table.numbers(1..=6);
    let mut any = false;
    for tenant in &status.tenants {
        let counts = [
            tenant.completion_followed,
            tenant.completion_done,
            tenant.completion_failed,
            tenant.completion_canceled,
            tenant.completion_not_supported,
            tenant.completion_untracked,
        ];
        if counts.iter().any(|count| *count > 0) {
            any = true;
            table.row(std::iter::once(tenant.tenant.clone()).chain(counts.map(|count| count.to_string())));
        }
    }
    any.then(|| table.text())
}

fn workers(status: &Status) -> String {
    if status.workers.is_empty() {
        return "No worker is alive.\n".to_owned();
    }
    let mut table = Columns::new(&["worker", "host", "version", "started", "heartbeat"]);
    for worker in &status.workers {
        table.row([
            worker.id.to_string(),
            worker.host.clone(),
            worker.version.clone(),
            format!("{} ago", between(worker.started_at, status.now)),
            format!("{} ago", between(worker.heartbeat_at, status.now)),
        ]);
    }
    table.text()
}

fn requests(n: i64) -> String {
    if n == 1 { "1 request".to_owned() } else { format!("{n} requests") }
}
