//! What may be exchanged while the engine works: its settings, as one, and the tenants' bounds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::{Notify, oneshot};

use super::Settings;
use crate::config::Limits;
use crate::domain::id::TenantName;

/// The settings in force, shared by everything that reads them anew for each of its steps.
pub(super) struct Live(RwLock<Arc<Settings>>);

impl Live {
    pub(super) fn new(settings: Settings) -> Self {
        Self(RwLock::new(Arc::new(settings)))
    }

    pub(super) fn get(&self) -> Arc<Settings> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn set(&self, settings: Settings) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }
}

/// Settings that are to be in force from the next look at the queue on.
pub(super) struct Exchange {
    pub(super) settings: Settings,
    pub(super) limits: BTreeMap<TenantName, Limits>,
    pub(super) done: oneshot::Sender<()>,
}

/// Where an exchange waits until the work loop is between two looks.
#[derive(Default)]
pub(super) struct Waiting {
    exchange: Mutex<Option<Exchange>>,
    /// An exchange waits.
    pub(super) asked: Notify,
}

impl Waiting {
    pub(super) fn put(&self, exchange: Exchange) {
        *self.exchange.lock().unwrap_or_else(PoisonError::into_inner) = Some(exchange);
        self.asked.notify_one();
    }

    pub(super) fn take(&self) -> Option<Exchange> {
        self.exchange.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
