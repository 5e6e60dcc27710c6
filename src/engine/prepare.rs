//! What a call needs before it can be planned: a token, and with some actions the tenant's list of Cloud PCs. What keeps them away
//! makes the tenant wait, or blocks it, as an answer to a call would.

use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use tracing::{debug, info, warn};

use super::millis;
use super::tasks::Done;
use super::tenant::Tenant;
use crate::domain::action::Action;
use crate::domain::answer::{Meaning, meaning};
use crate::domain::lifecycle::{TenantEffect, WaitCode};
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
            self.log(&effect);
            // Nothing is lost by it: this process knows, and the work loop says that the database is away.
            if let Err(unrecorded) = self.store.defer_tenant(&tenant.name, &effect).await {
                debug!(tenant = %tenant.name, error = unrecorded.to_string(), "that the tenant waits could not be recorded");
            }
        } else if tenant.unprepared(None).is_some() {
            info!(tenant = %tenant.name, "calls can be made again");
        }
        Done::Preparation(tenant.name.clone())
    }

    /// Says that no call can be made, once for each kind of trouble: the reasons of one kind differ in times and trace ids.
    fn log(&self, effect: &TenantEffect) {
        let (wait_code, block_code, delay, reason) = match effect {
            TenantEffect::Wait { delay, code, reason } => (Some(code.as_str()), None, delay, reason),
            TenantEffect::Block { probe_after, code, reason } => (None, Some(code.as_str()), probe_after, reason),
            _ => return,
        };
        let (tenant, wait_ms) = (&self.tenant.name, millis(*delay));
        let trouble = wait_code.or(block_code);
        if self.tenant.unprepared(trouble) == trouble {
            debug!(%tenant, wait_code, block_code, wait_ms, error = reason, "still no call can be made");
        } else {
            warn!(%tenant, wait_code, block_code, wait_ms, error = reason, "no call can be made; trying again until one can");
        }
    }
}

/// What it means for a tenant that a call cannot be prepared.
fn effect(problem: &Unprepared, action: Action, delay: Duration, probe_after: Duration) -> TenantEffect {
    let wait = |delay, code, reason| TenantEffect::Wait { delay, code, reason };
    match problem {
        Unprepared::Token(error) => wait(delay, WaitCode::NoToken, error.to_string()),
        // A Retry-After that is a date comes with the Date that it counts from.
        Unprepared::CloudPcs(exchange) => match meaning(exchange, action, &[], false, DateTime::UNIX_EPOCH) {
            Meaning::Throttled { retry_after, reason } => {
                wait(delay.max(retry_after.unwrap_or_default()), WaitCode::Throttled, format!("{problem}: {reason}"))
            }
            Meaning::Blocked { code, reason } => {
                TenantEffect::Block { code, reason: format!("{problem}: {reason}"), probe_after }
            }
            Meaning::NotSent { reason } => wait(delay, WaitCode::NoCloudPcs, reason),
            Meaning::TokenRefused { reason } | Meaning::Unknown { reason } | Meaning::Refused { reason } => {
                wait(delay, WaitCode::NoCloudPcs, format!("{problem}: {reason}"))
            }
            Meaning::Answered { .. } => wait(delay, WaitCode::NoCloudPcs, problem.to_string()),
        },
    }
}
