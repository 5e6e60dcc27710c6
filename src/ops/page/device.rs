//! The look-up: everything that ever happened to a device.

use std::collections::BTreeMap;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use chrono::{DateTime, Utc};
use maud::{Markup, html};

use super::parts::{ago, empty, id, long, outside, scroll, state, time};
use super::tables::{cell, ids};
use super::{away, page};
use crate::ops::{Shared, asked_device};
use crate::store::{DeviceHistory, HistoryRow, PendingRow};

/// Events that are listed: the newest.
const EVENTS: u32 = 500;

pub(in crate::ops) async fn device(State(ops): Shared, Query(query): Query<BTreeMap<String, String>>) -> Response {
    let device = match asked_device(&query) {
        Ok(device) => device,
        Err(given) => {
            let content = html! {
                section {
                    h2 { "No device ID" }
                    p { q { (outside(&given, 100)) } " is not a device ID. Write it as " code { "30d0e128-de93-41dc-89ec-33d84bb662a0" } "." }
                }
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
                section {
                    h2 { "Device " (id(&device)) }
                    (past(&history, &device, now))
                }
            };
            page(&ops, StatusCode::OK, "Device", Some(now), &device, &content)
        }
        Err(unread) => away(&ops, &unread),
    }
}

fn past(history: &DeviceHistory, device: &str, now: DateTime<Utc>) -> Markup {
    if history.events.is_empty() && history.pending.is_empty() {
        return empty("Nobody has asked for this device.");
    }
    html! {
        h3 { "Now" }
        @if history.pending.is_empty() { (empty("Nothing is pending for this device.")) }
        ul.plain { @for row in &history.pending { (pending(row, now)) } }
        h3 { "History, oldest first" }
        p { a href={ "/device.csv?id=" (device) } { "Download as CSV" } }
        @if history.events.len() == EVENTS as usize { p.quiet { "The newest " (EVENTS) " events; the CSV has more." } }
        (scroll("History", &html! { table {
            thead { tr {
                th scope="col" { "When (UTC)" } th scope="col" { "What" } th.n scope="col" { "Request" } th.n scope="col" { "Attempt" }
                th scope="col" { "By" } th.n scope="col" { "HTTP" } th scope="col" { "IDs of the call" } th scope="col" { "Why" }
            } }
            tbody { @for row in &history.events { (event(row)) } }
        } }))
    }
}

fn pending(row: &PendingRow, now: DateTime<Utc>) -> Markup {
    html! { li {
        "Request " b { (row.request_id) } " of tenant " (outside(&row.tenant, 64)) ": " (state(&row.state)) ", asked " (ago(row.requested_at, now))
        @if row.attempts > 0 { ", attempts: " (row.attempts) }
        @if let Some(due) = row.due_at.filter(|due| *due > now) { ", due " (time(due)) " UTC" }
        @if let Some(detail) = &row.detail { ". " (long(detail)) }
        @if matches!(row.state.as_str(), "held" | "unknown") {
            pre.command { "reprovisiond resolve --request " (row.request_id) " --as successful|retry|failed --by NAME --reason TEXT" }
        }
    } }
}

fn event(row: &HistoryRow) -> Markup {
    html! { tr {
        (cell("When", "", &time(row.at)))
        (cell("What", "", &html! { (state(&row.event)) @if row.r#final { " " small.quiet { "final" } } }))
        (cell("Request", "n", &html! { (row.request_id) }))
        (cell("Attempt", "n", &html! { @if let Some(attempt) = row.attempt { (attempt) } }))
        (cell("By", "text", &html! {
            @if let Some(source) = &row.source { (outside(&source.replace('_', " "), 40)) } @else if let Some(by) = &row.requested_by { (long(by)) }
        }))
        (cell("HTTP", "n", &html! { @if let Some(status) = row.http_status { (status) } }))
        (cell("IDs", "", &html! { @if let Some(call) = row.call_id { (ids(&call.to_string(), row.graph_request_id.as_deref())) } }))
        (cell("Why", "text", &html! {
            @if let Some(detail) = &row.detail { (long(detail)) }
            @if let Some(evidence) = &row.evidence { details { summary { "Evidence" } pre { (outside(evidence, 4000)) } } }
        }))
    } }
}
