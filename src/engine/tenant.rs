//! A tenant, as the process that serves it sees it.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::Served;
use crate::clock::{BootInstant, Clock};
use crate::config::Limits;
use crate::domain::action::Action;
use crate::domain::id::TenantName;
use crate::domain::lifecycle::TenantEffect;
use crate::graph::Graph;
use crate::metrics::Metrics;

/// One tenant as this process sees it.
pub(super) struct Tenant {
    pub(super) name: TenantName,
    pub(super) graph: Arc<dyn Graph>,
    pub(super) action: Action,
    pub(super) metrics: Arc<Metrics>,
    limits: RwLock<Limits>,
    clock: Arc<dyn Clock>,
    /// No call of this process leaves before then: known at once, before the database has it.
    hold_until: Mutex<Option<BootInstant>>,
    unprepared: Mutex<Option<&'static str>>,
}

impl Tenant {
    pub(super) fn new(served: Served, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        let Served { name, graph, action, limits } = served;
        Self {
            name,
            graph,
            action,
            limits: RwLock::new(limits),
            metrics,
            clock,
            hold_until: Mutex::default(),
            unprepared: Mutex::default(),
        }
    }

    /// Its bounds, as they are now.
    pub(super) fn limits(&self) -> Limits {
        self.limits.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its bounds from now on.
    pub(super) fn bound_by(&self, limits: Limits) {
        *self.limits.write().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    /// Nothing leaves before the end of what this asks for.
    pub(super) fn hold(&self, effect: &TenantEffect) {
        let (now, name) = (self.clock.now(), self.name.as_str());
        let time = match effect {
            TenantEffect::Wait { delay, code, .. } => {
                self.metrics.waits(name, code.as_str(), now, *delay);
                *delay
            }
            TenantEffect::Block { probe_after, code, .. } => {
                self.metrics.blocked(name, code.as_str(), now, *probe_after);
                *probe_after
            }
            _ => return,
        };
        let mut held = self.hold_until.lock().unwrap_or_else(PoisonError::into_inner);
        let until = now.plus(time);
        *held = Some(held.map_or(until, |other| other.max(until)));
    }

    /// Remembers what keeps away what a call needs, by its code, and returns what did before: so that each is logged once.
    pub(super) fn unprepared(&self, code: Option<&'static str>) -> Option<&'static str> {
        std::mem::replace(&mut *self.unprepared.lock().unwrap_or_else(PoisonError::into_inner), code)
    }

    /// Publishes until when its token is good.
    pub(super) fn note_token(&self) {
        self.metrics.token(self.name.as_str(), self.graph.token_good_for().map(|rest| self.clock.now().plus(rest)));
    }

    /// Whether it must not leave now.
    pub(super) fn held(&self) -> bool {
        let held = self.hold_until.lock().unwrap_or_else(PoisonError::into_inner);
        held.is_some_and(|until| self.clock.now() < until)
    }
}
