//! What the database says of a tenant: whether requests for it are taken, and what holds them back.

use super::line::Line;
use crate::store::{Status, TenantStatus};

/// What is paused whatever its tenant.
pub(super) fn of_all(status: &Status) -> Option<Line> {
    let (devices, requests) = (status.paused_devices, status.paused_requests);
    (devices + requests > 0).then(|| {
        let seen = format!("paused by themselves: devices {devices}, requests {requests}");
        Line::warning(
            "queue",
            seen,
            "`reprovisiond resume --device ID ...` or `--request N ...`, with --by and --reason, ends a pause",
        )
    })
}

pub(super) fn of_tenant(name: &str, status: &Status) -> Vec<Line> {
    let what = "queue";
    let Some(tenant) = status.tenants.iter().find(|tenant| tenant.tenant == name) else {
        let seen = "not registered in the database: requests for it are refused at the INSERT";
        return vec![Line::warning(what, seen, "`reprovisiond migrate` registers it, and so does `reprovisiond run`")];
    };
    let TenantStatus { ready, waiting, .. } = tenant;
    let mut lines =
        vec![Line::ok(what, format!("registered; requests ready to be sent: {ready}, waiting for a time: {waiting}"))];
    if tenant.paused_at.is_some() {
        let (by, why) = (text(tenant.paused_by.as_ref()), text(tenant.pause_reason.as_ref()));
        let remedy = format!("`reprovisiond resume --tenant {name} --by NAME --reason TEXT`, once it may send");
        lines.push(Line::warning(what, format!("paused by {by}: {why}"), remedy));
    }
    if tenant.blocked_at.is_some() {
        let why = text(tenant.block_reason.as_ref().or(tenant.block_code.as_ref()));
        let remedy = "mend what it names; `reprovisiond run` tries it with one small call when it starts";
        lines.push(Line::warning(what, format!("blocked: {why}"), remedy));
    }
    if tenant.held > 0 {
        let seen = format!("requests held, whose outcome no evidence could settle: {}", tenant.held);
        let remedy =
            format!("`reprovisiond resolve --tenant {name} --as successful|retry|failed --by NAME --reason TEXT`");
        lines.push(Line::warning(what, seen, remedy));
    }
    if tenant.unknown > 0 {
        let seen = format!("requests in doubt: {}", tenant.unknown);
        let remedy = "`reprovisiond run` settles them by reading back; `reprovisiond status` shows how far it is";
        lines.push(Line::warning(what, seen, remedy));
    }
    lines
}

fn text(given: Option<&String>) -> &str {
    given.map_or("(not recorded)", String::as_str)
}
