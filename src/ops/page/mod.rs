//! The page for people: read only, without JavaScript. Whatever comes from outside is escaped by the templates, and made safe for one
//! line before.

mod charts;
mod parts;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use chrono::{DateTime, Utc};
use maud::{DOCTYPE, Markup, html};

use super::source::Unread;
use super::{Ops, Shared, asked_device, health, needs, typed};
use crate::store::{Activity, CallRow, DeviceHistory, Store};
use charts::Window;
use parts::{empty, id, long, outside, state, time};

pub(super) const STYLE: &str = include_str!("style.css");
pub(super) const ICON: &str = include_str!("icon.svg");

/// Calls that are listed.
const CALLS: u32 = 30;

/// Events of a device that are listed: the newest.
const EVENTS: u32 = 500;

const HOUR: Window = Window {
    name: "Last hour",
    span: Duration::from_hours(1),
    slot: Duration::from_mins(1),
    slots: 60,
    each: "minute",
};
const DAY: Window = Window {
    name: "Last day",
    span: Duration::from_hours(24),
    slot: Duration::from_mins(30),
    slots: 48,
    each: "half hour",
};

struct Recent {
    hour: Vec<Activity>,
    day: Vec<Activity>,
    calls: Vec<CallRow>,
}

async fn recent(store: Arc<dyn Store>) -> Result<Recent, crate::store::StoreError> {
    Ok(Recent {
        hour: store.activity(HOUR.span, HOUR.slot).await?,
        day: store.activity(DAY.span, DAY.slot).await?,
        calls: store.last_calls(CALLS).await?,
    })
}

pub(super) async fn front(State(ops): Shared) -> Response {
    let overview = match ops.source.overview().await {
        Ok(overview) => overview,
        Err(unread) => return away(&ops, &unread),
    };
    let recent = match ops.source.ask(recent).await {
        Ok(recent) => recent,
        Err(unread) => return away(&ops, &unread),
    };
    let (status, needs) = (&overview.status, needs(&overview.status));
    let unready: Vec<_> = health::checks(&ops).await.into_iter().filter(|check| !check.ok).collect();
    let now = status.now;
    let content = html! {
        (parts::attention(&needs, &unready))
        (parts::doubts(status))
        (parts::holds(status))
        section aria-labelledby="queue" { h2 #queue { "Queue" } (parts::queue(status)) }
        section aria-labelledby="throughput" {
            h2 #throughput { "Throughput" }
            div.pair { (charts::window(&HOUR, &recent.hour)) (charts::window(&DAY, &recent.day)) }
        }
        section aria-labelledby="calls" { h2 #calls { "Last calls" } (calls(&recent.calls, now)) }
        section aria-labelledby="workers" { h2 #workers { "Workers" } (parts::workers(status)) }
    };
    page(&ops, StatusCode::OK, "reprovisiond", Some(now), "", &content)
}

pub(super) async fn device(State(ops): Shared, Query(query): Query<BTreeMap<String, String>>) -> Response {
    let device = match asked_device(&query) {
        Ok(device) => device,
        Err(given) => {
            let content = html! {
                h2 { "No device ID" }
                p { q { (outside(&given, 100)) } " is not a device ID. Write it as " code { "30d0e128-de93-41dc-89ec-33d84bb662a0" } "." }
            };
            return page(&ops, StatusCode::BAD_REQUEST, "No device ID", None, &given, &content);
        }
    };
    let history = ops.source.ask(move |store| async move {
        let history = store.device_history(device, EVENTS).await?;
        Ok((store.now().await?, history))
    });
    match history.await {
        Ok((now, history)) => {
            let device = device.to_string();
            let content = html! {
                h2 { "Device " (id(&device)) }
                (past(&history, &device, now))
            };
            page(&ops, StatusCode::OK, "Device", Some(now), &device, &content)
        }
        Err(unread) => away(&ops, &unread),
    }
}

/// What is left of the page without a database.
fn away(ops: &Ops, unread: &Unread) -> Response {
    let content = html! {
        section.need {
            h2 { "The database cannot be read" }
            p { (outside(&ops.database, 200)) ": " (outside(&unread.to_string(), 500)) }
            p { "Nothing is sent meanwhile, and nothing is lost. What the process knows is in " a href="/readyz" { "readyz" } " and " a href="/metrics" { "metrics" } "." }
        }
    };
    page(ops, StatusCode::SERVICE_UNAVAILABLE, "No database", None, "", &content)
}

fn page(
    ops: &Ops,
    status: StatusCode,
    title: &str,
    now: Option<DateTime<Utc>>,
    asked: &str,
    content: &Markup,
) -> Response {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) @if title != "reprovisiond" { " · reprovisiond" } }
                link rel="icon" href="/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/style.css";
            }
            body {
                header {
                    h1 { a href="/" { "reprovisiond" } }
                    form action="/device" method="get" role="search" {
                        label for="id" { "Device ID" }
                        input #id name="id" type="search" autocomplete="off" spellcheck="false" maxlength="64" value=(outside_text(asked));
                        button { "Look up" }
                    }
                }
                main { (content) }
                footer {
                    p {
                        @if let Some(now) = now { "As of " (time(now)) " UTC, by the database's clock. " }
                        "Version " (env!("CARGO_PKG_VERSION")) ", worker " (id(&ops.worker.to_string())) ", database " span.long { (outside(&ops.database, 200)) } "."
                    }
                    nav aria-label="Other forms" {
                        a href="/results.csv" { "results.csv" } " (the newest 10,000) · "
                        a href="/status.json" { "status.json" } " · " a href="/metrics" { "metrics" } " · "
                        a href="/readyz" { "readyz" } " · " a href="/healthz" { "healthz" }
                    }
                }
            }
        }
    };
    (status, typed("text/html; charset=utf-8", page.into_string())).into_response()
}

fn outside_text(text: &str) -> String {
    crate::domain::printable::printable(text, 64).to_string()
}

fn calls(calls: &[CallRow], now: DateTime<Utc>) -> Markup {
    if calls.is_empty() {
        return empty("No call has been made yet.");
    }
    html! {
        div.scroll tabindex="0" role="region" aria-labelledby="calls" {
            table {
                thead { tr {
                    th scope="col" { "Sent" } th scope="col" { "Tenant" } th.n scope="col" { "Devices" } th scope="col" { "State" }
                    th.n scope="col" { "HTTP" } th.n scope="col" { "Took" } th scope="col" { "client-request-id" } th scope="col" { "request-id" } th scope="col" { "What was said" }
                } }
                tbody { @for call in calls { tr {
                    td { (time(call.sent_at)) }
                    td { (outside(&call.tenant, 64)) }
                    td.n { (call.device_count) }
                    td { (state(&call.state)) }
                    td.n { @if let Some(status) = call.http_status { (status) } @else { "–" } }
                    td.n { (parts::took(call.sent_at, call.finished_at.unwrap_or(now))) @if call.finished_at.is_none() { "…" } }
                    td { (id(&call.id.to_string())) }
                    td { @if let Some(request) = &call.graph_request_id { (id(request)) } }
                    td.text { (said(call)) }
                } } }
            }
        }
    }
}

fn said(call: &CallRow) -> Markup {
    html! {
        @if let Some(code) = &call.error_code { b { (outside(code, 80)) } " " }
        @if let Some(message) = &call.error_message { (long(message)) }
    }
}

fn past(history: &DeviceHistory, device: &str, now: DateTime<Utc>) -> Markup {
    if history.events.is_empty() && history.pending.is_empty() {
        return empty("Nobody has asked for this device.");
    }
    html! {
        @if !history.pending.is_empty() {
            h3 { "Pending" }
            ul.plain { @for row in &history.pending { li {
                "Request " (row.request_id) " of " (outside(&row.tenant, 64)) ": " (state(&row.state)) ", asked " (parts::ago(row.requested_at, now))
                @if let Some(due) = row.due_at.filter(|due| *due > now) { ", due " (time(due)) }
                @if let Some(detail) = &row.detail { ": " (long(detail)) }
            } } }
        }
        h3 { "History" }
        p { a href={ "/device.csv?id=" (device) } { "Download as CSV" } }
        div.scroll tabindex="0" role="region" aria-label="History" {
            table {
                thead { tr {
                    th scope="col" { "When" } th.n scope="col" { "Request" } th scope="col" { "What" } th.n scope="col" { "Attempt" } th scope="col" { "By" }
                    th.n scope="col" { "HTTP" } th scope="col" { "client-request-id" } th scope="col" { "request-id" } th scope="col" { "Why" }
                } }
                tbody { @for row in &history.events { tr {
                    td { (time(row.at)) }
                    td.n { (row.request_id) }
                    td { (state(&row.event)) @if row.r#final { " " small { "final" } } }
                    td.n { @if let Some(attempt) = row.attempt { (attempt) } }
                    td { @if let Some(source) = &row.source { (outside(source, 40)) } @else if let Some(by) = &row.requested_by { (long(by)) } }
                    td.n { @if let Some(status) = row.http_status { (status) } }
                    td { @if let Some(call) = row.call_id { (id(&call.to_string())) } }
                    td { @if let Some(request) = &row.graph_request_id { (id(request)) } }
                    td.text {
                        @if let Some(detail) = &row.detail { (long(detail)) }
                        @if let Some(evidence) = &row.evidence { details { summary { "Evidence" } pre { (outside(evidence, 4000)) } } }
                    }
                } } }
            }
        }
    }
}
