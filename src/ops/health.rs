//! `/healthz`: whether the process works. `/readyz`: whether work could go, and if not what is wrong and what to do.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;

use super::{Ops, Shared, json, typed};
use crate::clock::BootInstant;
use crate::metrics::State as Now;

/// One thing that must hold.
#[derive(Debug, Serialize)]
pub(super) struct Check {
    #[serde(rename = "check")]
    name: String,
    pub(super) ok: bool,
    /// What was seen, and what to do.
    detail: String,
}

impl Check {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    fn new(name: impl Into<String>, wrong: Option<String>, right: impl Into<String>) -> Self {
        Self { name: name.into(), ok: wrong.is_none(), detail: wrong.unwrap_or_else(|| right.into()) }
    }
}

pub(super) async fn healthz(State(ops): Shared) -> Response {
    let check = work_loop(&ops, &ops.metrics.now());
    let status = if check.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let text = if check.ok { "ok\n".to_owned() } else { format!("{}\n", check.detail) };
    (status, typed("text/plain; charset=utf-8", text)).into_response()
}

pub(super) async fn readyz(State(ops): Shared) -> Response {
    let checks = checks(&ops).await;
    let ready = checks.iter().all(|check| check.ok);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(status, &serde_json::json!({ "ready": ready, "checks": checks }))
}

/// Its signs of life are those that feed systemd's watchdog. While it stops it takes what `worker.drain_timeout` gives it.
fn work_loop(ops: &Ops, now: &Now) -> Check {
    let silent = now.beat_at.unwrap_or(ops.started).elapsed();
    let wrong = (silent > ops.silence && !ops.stop.is_cancelled()).then(|| {
        format!(
            "the work loop has given no sign of life for {} s, where {} s are the most: look at the log and restart the daemon; what it had under way is unknown then, and nothing is lost",
            silent.as_secs(),
            ops.silence.as_secs()
        )
    });
    Check::new("work_loop", wrong, "alive")
}

pub(super) async fn checks(ops: &Ops) -> Vec<Check> {
    let state = ops.metrics.now();
    let stopping = ops.stop.is_cancelled().then(|| "the daemon is stopping: it takes nothing any more".to_owned());
    let mut checks = vec![work_loop(ops, &state), Check::new("running", stopping, "takes requests")];
    let unseen = match &state.look {
        Some(Ok(())) => None,
        Some(Err(problem)) => Some(format!("the last look at the queue failed: {}: {problem}", ops.database)),
        None => Some("the queue has not been looked at yet".to_owned()),
    };
    checks.push(Check::new("queue", unseen, "looked at"));
    let lapsed = state.lease_until.is_none_or(|until| until.remaining().is_zero());
    let lapsed = lapsed.then(|| {
        "this worker's lease could not be renewed, so nothing is sent: the database or this host stands still"
            .to_owned()
    });
    checks.push(Check::new("lease", lapsed, "held"));
    for (tenant, state) in &state.tenants {
        let wrong = state.token_problem.as_ref().map(|problem| format!("no token could be had: {problem}"));
        let right = match state.token_expires_at.map(BootInstant::remaining) {
            Some(rest) if rest > Duration::ZERO => format!("good for {} s", rest.as_secs()),
            _ => "none at hand; one is fetched when there is a call to make".to_owned(),
        };
        checks.push(Check::new(format!("token of {tenant}"), wrong, right));
    }
    match ops.source.overview().await {
        Err(unread) => checks.push(Check::new("database", Some(format!("{}: {unread}", ops.database)), "")),
        Ok(overview) => {
            checks.push(Check::new("database", None, "answers, with this program's schema"));
            for tenant in overview.status.tenants.iter().filter(|t| state.tenants.contains_key(&t.tenant)) {
                let reason = tenant.block_reason.as_deref().or(tenant.block_code.as_deref());
                let wrong =
                    tenant.blocked_at.map(|_| format!("blocked: {}", reason.unwrap_or("no reason is recorded")));
                checks.push(Check::new(format!("tenant {}", tenant.tenant), wrong, "not blocked"));
            }
        }
    }
    checks
}
