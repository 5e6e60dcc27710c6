//! The worker's lease: others believe it alive for as long as it is renewed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tracing::{error, info, warn};

use super::process;
use crate::clock::{BootInstant, Clock};
use crate::domain::id::WorkerId;
use crate::domain::lifecycle::CallState;
use crate::metrics::Metrics;
use crate::store::{Store, StoreError, WorkerIdentity};

/// This worker's lease, as it knows it itself: never longer than the database has it.
pub(super) struct Lease {
    worker: WorkerId,
    length: Duration,
    clock: Arc<dyn Clock>,
    held_until: Mutex<BootInstant>,
    metrics: Arc<Metrics>,
}

impl Lease {
    pub(super) fn new(worker: WorkerId, length: Duration, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        Self { worker, length, held_until: Mutex::new(clock.now()), clock, metrics }
    }

    /// Whether others still believe this worker alive.
    pub(super) fn holds(&self) -> bool {
        self.clock.now() < *self.held_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counted from before the database was asked, so that it ends here before it ends there.
    fn renewed(&self, asked_at: BootInstant) {
        let until = asked_at.plus(self.length);
        *self.held_until.lock().unwrap_or_else(PoisonError::into_inner) = until;
        self.metrics.lease(until);
    }

    /// Registers the worker.
    pub(super) async fn start(&self, store: &dyn Store) -> Result<(), StoreError> {
        let process = process::this_process(self.worker);
        let asked_at = self.clock.now();
        let identity = WorkerIdentity {
            id: self.worker,
            host: process.host,
            process: process.process,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        store.start_worker(&identity, self.length).await?;
        self.renewed(asked_at);
        // A process of this host that is no more need not be waited for.
        for other in store.workers_with_open_calls(&identity.host).await? {
            if other.id != self.worker && !process::is_alive(&other.process) {
                store.stop_worker(other.id).await?;
            }
        }
        Ok(())
    }

    /// Gives up the calls of workers that are no more: `unknown`, never sent again without evidence.
    pub(super) async fn abandon(&self, store: &dyn Store) -> Result<(), StoreError> {
        // Those of this worker have had their line when they were dropped.
        for call in store.abandon_calls().await?.into_iter().filter(|call| call.worker != self.worker) {
            warn!(
                tenant = call.tenant,
                call_id = %call.call_id,
                devices = call.device_count,
                outcome = CallState::Unknown.as_str(),
                unknown = call.device_count,
                worker_id = %call.worker,
                "a call was found without an answer and without a living worker: it may have been carried out, its devices are unknown now and are not sent again without evidence"
            );
        }
        Ok(())
    }

    async fn renew(&self, store: &dyn Store) -> Result<(), StoreError> {
        let asked_at = self.clock.now();
        let held = store.renew_lease(self.worker, self.length).await?;
        self.renewed(asked_at);
        if !held {
            error!(
                worker_id = %self.worker,
                "this worker's lease had lapsed (the machine or the database stood still): calls it had under way may have been given up as unknown"
            );
        }
        self.abandon(store).await
    }
}

/// Renews three times in a lease's length, and more often while that fails, for as long as the process lives.
pub(super) async fn keep(lease: Arc<Lease>, store: Arc<dyn Store>, nudge: Arc<Notify>) {
    let mut failing = false;
    loop {
        tokio::time::sleep(lease.length / if failing { 12 } else { 3 }).await;
        let held = lease.holds();
        match lease.renew(&*store).await {
            Ok(()) => {
                if !held {
                    // The work loop has made no intent since it lapsed.
                    nudge.notify_one();
                }
                if std::mem::take(&mut failing) {
                    info!(worker_id = %lease.worker, "the lease is renewed again");
                }
            }
            Err(problem) if !failing => {
                warn!(worker_id = %lease.worker, error = problem.to_string(), "the lease cannot be renewed; nothing is sent once it lapses");
                failing = true;
            }
            Err(_) => {}
        }
    }
}
