//! What a call needs before it can be planned: a token, and with some actions the tenant's list of Cloud PCs. What keeps them away
//! makes the tenant wait, or blocks it, as an answer to a call would.

use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use tracing::warn;

use super::millis;
use super::tasks::Done;
use super::tenant::Tenant;
use crate::domain::action::Action;
use crate::domain::answer::{Meaning, meaning};
use crate::domain::lifecycle::TenantEffect;
use crate::graph::Unprepared;
use crate::store::Store;

/// One tenant's, under way.
pub(super) struct Preparation {
    pub(super) store: Arc<dyn Store>,
    pub(super) tenant: Arc<Tenant>,
    /// How long it waits if this fails, by its own schedule.
    pub(super) delay: Duration,
    /// How long if a person must mend something first.
    pub(super) probe_after: Duration,
}

impl Preparation {
    pub(super) async fn run(self) -> Done {
        let tenant = &self.tenant;
        let prepared = tenant.graph.prepare().await;
        tenant.note_token();
        if let Err(problem) = prepared {
            if let Unprepared::Token(error) = &problem {
                tenant.metrics.no_token(tenant.name.as_str(), error.to_string());
            }
            let effect = effect(&problem, tenant.action, self.delay, self.probe_after);
            tenant.hold(&effect);
            if let TenantEffect::Wait { delay, reason, .. } | TenantEffect::Block { probe_after: delay, reason, .. } =
                &effect
            {
                warn!(tenant = %tenant.name, error = reason, again_in_ms = millis(*delay), "no call can be made");
            }
            if let Err(unrecorded) = self.store.defer_tenant(&tenant.name, &effect).await {
                warn!(tenant = %tenant.name, error = unrecorded.to_string(), "that the tenant waits could not be recorded");
            }
        }
        Done::Preparation(tenant.name.clone())
    }
}

/// What it means for a tenant that a call cannot be prepared.
fn effect(problem: &Unprepared, action: Action, delay: Duration, probe_after: Duration) -> TenantEffect {
    let wait = |delay, code, reason| TenantEffect::Wait { delay, code, reason };
    match problem {
        Unprepared::Token(error) => wait(delay, "no_token", error.to_string()),
        // A Retry-After that is a date comes with the Date that it counts from.
        Unprepared::CloudPcs(exchange) => match meaning(exchange, action, &[], false, DateTime::UNIX_EPOCH) {
            Meaning::Throttled { retry_after, reason } => {
                wait(delay.max(retry_after.unwrap_or_default()), "throttled", format!("{problem}: {reason}"))
            }
            Meaning::Blocked { code, reason } => {
                TenantEffect::Block { code, reason: format!("{problem}: {reason}"), probe_after }
            }
            Meaning::NotSent { reason } => wait(delay, "no_cloud_pcs", reason),
            Meaning::TokenRefused { reason } | Meaning::Unknown { reason } | Meaning::Refused { reason } => {
                wait(delay, "no_cloud_pcs", format!("{problem}: {reason}"))
            }
            Meaning::Answered { .. } => wait(delay, "no_cloud_pcs", problem.to_string()),
        },
    }
}
