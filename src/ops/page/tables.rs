//! The tables of the front page. Each cell knows its column's name: on a phone a row is shown as a card.

use chrono::{DateTime, Utc};
use maud::{Markup, html};

use super::parts::{ago, empty, grouped, id, long, outside, scroll, state, time, took};
use crate::domain::span::between;
use crate::ops::needs::requests;
use crate::store::{CallRow, Doubtful, Status, TenantStatus, WorkerStatus};

/// So many requests of a call are shown without being asked for.
const FEW: usize = 5;

pub(super) fn cell(column: &str, class: &str, content: &Markup) -> Markup {
    html! { td.(class) data-column=(column) { div { (content) } } }
}

/// What Microsoft's support asks for, each selected by one click.
pub(super) fn ids(call: &str, request: Option<&str>) -> Markup {
    html! {
        div.ids { span.quiet { "client-request-id " } (id(call)) }
        @if let Some(request) = request { div.ids { span.quiet { "request-id " } (id(request)) } }
    }
}

/// A row for each call: what is known of one of its devices is known of all.
pub(super) fn doubtful(rows: &[Doubtful], now: DateTime<Utc>) -> Markup {
    scroll(
        "Held and in doubt",
        &html! { table {
            thead { tr {
                th scope="col" { "State" } th scope="col" { "Tenant" } th scope="col" { "Sent (UTC)" } th scope="col" { "client-request-id" }
                th scope="col" { "Requests" }
            } }
            tbody { @for of_call in rows.chunk_by(|a, b| (a.call_id, &a.state) == (b.call_id, &b.state)) { (doubtful_call(of_call, now)) } }
        } },
    )
}

fn doubtful_call(rows: &[Doubtful], now: DateTime<Utc>) -> Markup {
    let Some(first) = rows.first() else { return Markup::default() };
    html! { tr {
        (cell("State", "", &state(&first.state)))
        (cell("Tenant", "", &outside(&first.tenant, 64)))
        (cell("Sent", "", &html! { @if let Some(at) = first.sent_at { (time(at)) ", " (ago(at, now)) } }))
        (cell("Call", "", &html! { @if let Some(call) = first.call_id { (id(&call.to_string())) } }))
        (cell("Requests", "text", &html! {
            details open[rows.len() <= FEW] {
                summary { (requests(i64::try_from(rows.len()).unwrap_or(i64::MAX))) }
                ul.plain.few { @for row in rows { li {
                    "request " (row.request_id) ": " a href={ "/device?id=" (row.managed_device_id) } { (id(&row.managed_device_id)) }
                } } }
            }
        }))
    } }
}

pub(super) fn calls(calls: &[CallRow], now: DateTime<Utc>) -> Markup {
    if calls.is_empty() {
        return empty("No call has been made yet.");
    }
    scroll(
        "Last calls",
        &html! { table {
            thead { tr {
                th scope="col" { "Sent (UTC)" } th scope="col" { "State" } th.n scope="col" { "Devices" } th.n scope="col" { "HTTP" } th.n scope="col" { "Took" }
                th scope="col" { "Tenant and action" } th scope="col" { "IDs" } th scope="col" { "What was said" }
            } }
            tbody { @for call in calls { tr {
                (cell("Sent", "", &time(call.sent_at)))
                (cell("State", "", &state(&call.state)))
                (cell("Devices", "n", &html! { (grouped(call.device_count.into())) }))
                (cell("HTTP", "n", &html! { @if let Some(status) = call.http_status { (status) } @else { "–" } }))
                (cell("Took", "n", &html! { (took(call.sent_at, call.finished_at.unwrap_or(now))) @if call.finished_at.is_none() { "…" } }))
                (cell("Tenant", "", &html! { (outside(&call.tenant, 64)) div.quiet { (outside(&call.action, 64)) } }))
                (cell("IDs", "", &ids(&call.id.to_string(), call.graph_request_id.as_deref())))
                (cell("Said", "text", &html! {
                    @if let Some(code) = &call.error_code { b { (outside(code, 80)) } " " }
                    @if let Some(message) = &call.error_message { (long(message)) }
                }))
            } } }
        } },
    )
}

pub(super) fn queue(status: &Status) -> Markup {
    if status.tenants.is_empty() {
        return empty("No tenant is registered.");
    }
    let now = status.now;
    let followed = status.tenants.iter().any(|tenant| tenant.completion_followed > 0);
    scroll(
        "Queue",
        &html! { table {
            thead { tr {
                th scope="col" { "Tenant" } th scope="col" { "Is" } th.n scope="col" { "Ready" } th.n scope="col" { "Waiting" } th.n scope="col" { "Sending" }
                th.n scope="col" { "Unknown" } th.n scope="col" { "Held" } th.n scope="col" { "Oldest ready" } th.n scope="col" { "Next due" }
                @if followed { th.n scope="col" { "Followed" } }
            } }
            tbody { @for tenant in &status.tenants { tr {
                th scope="row" data-column="Tenant" { div { (outside(&tenant.tenant, 64)) } }
                (cell("Is", "", &is(tenant, now)))
                (number("Ready", tenant.ready, ""))
                (number("Waiting", tenant.waiting, ""))
                (number("Sending", tenant.sending, ""))
                (number("Unknown", tenant.unknown, "doubt"))
                (number("Held", tenant.held, "doubt"))
                (span("Oldest ready", tenant.oldest_ready_at.map(|at| between(at, now)).as_deref()))
                (span("Next due", tenant.next_due_at.map(|at| format!("in {}", between(now, at))).as_deref()))
                @if followed { (number("Followed", tenant.completion_followed, "")) }
            } } }
        } },
    )
}

fn span(column: &str, span: Option<&str>) -> Markup {
    let class = if span.is_some() { "n" } else { "n zero" };
    cell(column, class, &html! { (span.unwrap_or("–")) })
}

fn number(column: &str, count: i64, class: &str) -> Markup {
    let class = if count == 0 { "n zero".to_owned() } else { format!("n {class}") };
    cell(column, class.trim_end(), &html! { (grouped(count)) })
}

fn is(tenant: &TenantStatus, now: DateTime<Utc>) -> Markup {
    let (class, mark, word) = if tenant.blocked_at.is_some() {
        ("bad", "✕", "blocked")
    } else if tenant.paused_at.is_some() {
        ("other", "‖", "paused")
    } else if tenant.wait_until.is_some_and(|until| until > now) {
        ("open", "↺", "waiting")
    } else if tenant.cautious || tenant.calls_in_doubt > 0 {
        ("doubt", "?", "cautious")
    } else {
        ("good", "✓", "open")
    };
    html! { span.state.(class) { span aria-hidden="true" { (mark) } " " (word) } }
}

pub(super) fn workers(status: &Status) -> Markup {
    if status.workers.is_empty() {
        return empty("No worker is alive.");
    }
    scroll(
        "Workers",
        &html! { table {
            thead { tr {
                th scope="col" { "Worker" } th scope="col" { "Host" } th scope="col" { "Version" } th.n scope="col" { "Started" } th.n scope="col" { "Heartbeat" }
            } }
            tbody { @for worker in &status.workers { (self::worker(worker, status.now)) } }
        } },
    )
}

fn worker(worker: &WorkerStatus, now: DateTime<Utc>) -> Markup {
    html! { tr {
        (cell("Worker", "", &id(&worker.id.to_string())))
        // Behind the name stand the boot and the namespace, which tell processes apart and people nothing.
        (cell("Host", "", &outside(worker.host.split(' ').next().unwrap_or_default(), 64)))
        (cell("Version", "", &outside(&worker.version, 40)))
        (cell("Started", "n", &ago(worker.started_at, now)))
        (cell("Heartbeat", "n", &ago(worker.heartbeat_at, now)))
    } }
}
