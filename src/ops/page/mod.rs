//! The page for people: read only, without JavaScript. Whatever comes from outside is escaped by the templates, and made safe for one
//! line before.

mod charts;
mod device;
mod parts;
mod tables;

pub(super) use device::device;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use chrono::{DateTime, Utc};
use maud::{DOCTYPE, Markup, html};

use super::source::Unread;
use super::{Ops, Shared, health, needs, typed};
use crate::store::{Activity, CallRow, Status, Store};
use charts::{Subject, Window};
use parts::{id, outside, time};

pub(super) const STYLE: &str = include_str!("style.css");
pub(super) const ICON: &str = include_str!("icon.svg");

/// Calls that are listed.
const CALLS: u32 = 20;

const HOUR: Window = Window {
    name: "Last hour",
    span: Duration::from_hours(1),
    slot: Duration::from_mins(1),
    slots: 60,
    each: "minute",
    marks: ["60 min ago", "30 min", "now"],
};
const DAY: Window = Window {
    name: "Last day",
    span: Duration::from_hours(24),
    slot: Duration::from_mins(30),
    slots: 48,
    each: "half hour",
    marks: ["24 h ago", "12 h", "now"],
};

const SUBJECTS: [Subject; 3] = [
    Subject { of: "results", title: "Devices with a final result", unit: "devices" },
    Subject { of: "calls", title: "Calls to Graph", unit: "calls" },
    Subject { of: "completions", title: "Followed reprovisions that have ended", unit: "devices" },
];

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
        (parts::doubts(&overview))
        (parts::holds(status))
        section aria-labelledby="queue" { h2 #queue { "Queue" } (tables::queue(status)) }
        (throughput(status, &recent))
        section aria-labelledby="calls" { h2 #calls { "Last calls" } (tables::calls(&recent.calls, now)) }
        section aria-labelledby="workers" { h2 #workers { "Workers" } (tables::workers(status)) }
    };
    page(&ops, StatusCode::OK, "reprovisiond", Some(now), "", &content)
}

/// What is not followed has no chart.
fn throughput(status: &Status, recent: &Recent) -> Markup {
    let followed = status.tenants.iter().any(|tenant| tenant.completion_followed > 0)
        || recent.day.iter().any(|row| row.of == "completions");
    html! {
        section aria-labelledby="throughput" {
            h2 #throughput { "Throughput" }
            @for subject in SUBJECTS.iter().filter(|subject| followed || subject.of != "completions") {
                h3 { (subject.title) }
                div.pair { (charts::chart(&HOUR, &recent.hour, subject)) (charts::chart(&DAY, &recent.day, subject)) }
            }
        }
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
                        input #id name="id" type="search" autocomplete="off" spellcheck="false" maxlength="64" placeholder="Device ID" value=(outside_text(asked));
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
