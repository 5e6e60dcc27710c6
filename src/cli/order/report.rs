//! What came of an order, in sentences and in rows.

use std::fmt::Write as _;

use chrono::SecondsFormat;
use serde::Serialize;

use crate::domain::id::{CallId, RequestId};
use crate::domain::lifecycle::EntryState;
use crate::domain::operator::{Act, ScopeKind};
use crate::domain::printable::printable;
use crate::store::{Done, Found, Outcome, Refused};

/// Refusals that are shown on stderr; the others are counted.
const SHOWN: usize = 20;

/// Characters of a person's words that are shown.
const WORDS: usize = 400;

/// The columns of CSV, and the keys of JSON.
pub(super) const COLUMNS: &[&str] = &[
    "action",
    "outcome",
    "scope",
    "subject",
    "requests",
    "under_way",
    "in_doubt",
    "still_paused",
    "request_id",
    "managed_device_id",
    "state",
    "call_id",
    "action_id",
    "detail",
];

/// One thing that was done, or refused.
#[derive(Serialize)]
pub(super) struct Row {
    action: &'static str,
    outcome: &'static str,
    scope: Option<ScopeKind>,
    subject: Option<String>,
    requests: u64,
    under_way: u64,
    in_doubt: u64,
    still_paused: u64,
    request_id: Option<RequestId>,
    managed_device_id: Option<String>,
    state: Option<&'static str>,
    call_id: Option<CallId>,
    action_id: Option<i64>,
    detail: String,
}

/// Everything, for programs.
pub(super) fn rows(act: Act, outcome: &Outcome) -> impl Iterator<Item = Row> {
    let done = outcome.done.iter().map(move |done| Row {
        action: act.as_str(),
        outcome: "done",
        scope: Some(done.scope),
        subject: done.subject.clone(),
        requests: done.requests,
        under_way: done.under_way,
        in_doubt: done.in_doubt,
        still_paused: done.still_paused,
        request_id: None,
        managed_device_id: None,
        state: None,
        call_id: None,
        action_id: Some(done.action_id),
        detail: sentence(act, done),
    });
    done.chain(outcome.refused.iter().map(move |refused| refused_row(act, refused)))
}

fn refused_row(act: Act, refused: &Refused) -> Row {
    let mut row = Row {
        action: act.as_str(),
        outcome: "refused",
        scope: None,
        subject: None,
        requests: 0,
        under_way: 0,
        in_doubt: 0,
        still_paused: 0,
        request_id: None,
        managed_device_id: None,
        state: None,
        call_id: None,
        action_id: None,
        detail: refusal(act, refused),
    };
    let (scope, subject) = match refused {
        Refused::NoSuchTenant(tenant) => (ScopeKind::Tenant, tenant.clone()),
        Refused::NoSuchDevice(device) | Refused::NothingPending(device) => {
            row.managed_device_id = Some(device.clone());
            (ScopeKind::Device, device.clone())
        }
        Refused::NoSuchRequest(request) => (ScopeKind::Request, request.to_string()),
        Refused::Ended { request, bucket } => {
            row.request_id = Some(*request);
            row.state = Some(bucket.as_str());
            (ScopeKind::Request, request.to_string())
        }
        Refused::State(found) => {
            row.request_id = Some(found.request);
            row.managed_device_id = Some(found.device.clone());
            row.state = Some(found.state.as_str());
            row.call_id = found.call;
            (ScopeKind::Request, found.request.to_string())
        }
    };
    row.scope = Some(scope);
    row.subject = Some(subject);
    row
}

/// What was done, a line a subject.
pub(super) fn page(act: Act, outcome: &Outcome) -> String {
    let mut page = String::new();
    // Of what was asked for by name and could not be done, the refusal says more.
    let refused_alone = |done: &&Done| {
        matches!(act, Act::Cancel | Act::Resolve(_))
            && matches!(done.scope, ScopeKind::Device | ScopeKind::Request)
            && done.requests == 0
    };
    for done in outcome.done.iter().filter(|done| !refused_alone(done)) {
        // Writing to a String cannot fail.
        let _ = writeln!(page, "{}", sentence(act, done));
    }
    if outcome.done.is_empty() && outcome.refused.is_empty() {
        page.push_str("No tenant is registered: run `reprovisiond migrate`.\n");
    }
    page
}

/// What was refused, for stderr.
pub(super) fn refusals(act: Act, refused: &[Refused]) -> Option<String> {
    match refused {
        [] => None,
        [one] => Some(refusal(act, one)),
        several => {
            let mut text = format!("{} things were refused:", several.len());
            for refused in several.iter().take(SHOWN) {
                let _ = write!(text, "\n  {}", refusal(act, refused));
            }
            if several.len() > SHOWN {
                let _ = write!(text, "\n  and {} more: --output json has them all", several.len() - SHOWN);
            }
            Some(text)
        }
    }
}

fn sentence(act: Act, done: &Done) -> String {
    let subject = match &done.subject {
        None => "all tenants".to_owned(),
        Some(subject) => format!("{} {}", done.scope, printable(subject, 64)),
    };
    let requests = requests(done.requests);
    let mut text = match act {
        Act::Pause => match &done.pause_before {
            None => format!("{subject}: paused; {requests} held back"),
            Some(_) => format!("{subject}: was paused already; {requests} held back"),
        },
        Act::Resume => match &done.pause_before {
            None => format!("{subject}: was not paused; {requests} may go"),
            Some(_) => format!("{subject}: resumed; {requests} may go again"),
        },
        Act::Cancel => format!("{subject}: {requests} cancelled"),
        Act::Resolve(decision) => format!("{subject}: {requests} resolved as {decision}"),
    };
    if done.under_way > 0 {
        let _ = write!(text, "; {} under way already and not affected", done.under_way);
    }
    if done.in_doubt > 0 {
        let _ = write!(text, "; {} in doubt", done.in_doubt);
    }
    if done.still_paused > 0 {
        let _ = write!(text, "; {} still held back by another pause", done.still_paused);
    }
    if let Some(before) = &done.pause_before {
        let since = before.paused_at.to_rfc3339_opts(SecondsFormat::Secs, true);
        let (by, reason) = (printable(&before.paused_by, WORDS), printable(&before.reason, WORDS));
        let _ = write!(text, " (paused since {since} by {by}: {reason})");
    }
    text
}

fn refusal(act: Act, refused: &Refused) -> String {
    match refused {
        Refused::NoSuchTenant(tenant) => {
            format!("tenant {}: not registered; `reprovisiond status` shows those that are", printable(tenant, 64))
        }
        Refused::NoSuchDevice(device) => {
            format!("device {}: no request was ever made for it; check the ID", printable(device, 64))
        }
        Refused::NoSuchRequest(request) => format!("request {request}: there is none with this number"),
        Refused::Ended { request, bucket } => format!("request {request}: ended already, as {bucket}"),
        Refused::NothingPending(device) => {
            format!("device {}: no request for it is pending", printable(device, 64))
        }
        Refused::State(found) => state(act, found),
    }
}

fn state(act: Act, found: &Found) -> String {
    let Found { request, state, device, call, .. } = found;
    let device = printable(device, 64);
    let call = call.map_or_else(String::new, |call| format!(", call {call}"));
    let subject = format!("request {request} (device {device}): {state}{call}");
    match (act, state) {
        (Act::Resolve(_), EntryState::Queued) => {
            format!("{subject}; it is not in doubt: it waits to be sent, `reprovisiond cancel` ends it")
        }
        (Act::Resolve(_), _) => format!("{subject}; it is not in doubt: its call is under way"),
        (_, EntryState::Unknown | EntryState::Held) => format!(
            "{subject}; its call may have been carried out, so it cannot be cancelled: use `reprovisiond resolve --request {request}`"
        ),
        _ => format!("{subject}; its call is under way, so it cannot be cancelled"),
    }
}

fn requests(n: u64) -> String {
    if n == 1 { "1 request".to_owned() } else { format!("{n} requests") }
}
