//! The reconciler: looks at calls in doubt and settles them by evidence, or hands them to a person.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::Notify;
use tracing::{debug, error, info, warn};

use super::{Live, Tenant};
use crate::clock::{BootInstant, Clock};
use crate::config::UnknownPolicy;
use crate::domain::id::{CallId, RequestId};
use crate::domain::read_back::{Doubt, ReconcilePolicy, Settlement, not_read, settle};
use crate::failpoint;
use crate::store::{Store, StoreError};

/// Doubts looked at in one round, and so settled in one transaction.
const ROUND: u32 = 100;

/// Read-backs under way at once: well within Graph's allowance for reads.
const READS_AT_ONCE: usize = 4;

/// One tenant's. Works beside the queue and never holds it up, and waits for no other tenant's read-backs.
pub(super) struct Reconciler {
    pub(super) store: Arc<dyn Store>,
    pub(super) tenant: Arc<Tenant>,
    pub(super) settings: Arc<Live>,
    /// Settled doubts may let the queue go on.
    pub(super) nudge: Arc<Notify>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) first_seen: FirstSeen,
    /// What the log said last of doubts that stay open.
    pub(super) still_open: Option<String>,
}

/// When this process first saw each doubt: the database's clock alone, which anybody may set, never ends the settling time.
pub(super) type FirstSeen = HashMap<(RequestId, CallId), BootInstant>;

impl Reconciler {
    /// Runs for as long as the process lives.
    pub(super) async fn run(mut self) {
        let mut failing = false;
        loop {
            match self.round().await {
                Ok(more) => {
                    if std::mem::take(&mut failing) {
                        info!(tenant = %self.tenant.name, "calls in doubt are looked at again");
                    }
                    if more {
                        continue;
                    }
                }
                Err(problem) => {
                    if !std::mem::replace(&mut failing, true) {
                        warn!(
                            tenant = %self.tenant.name,
                            error = problem.to_string(),
                            "calls in doubt cannot be looked at until the database answers again"
                        );
                    }
                }
            }
            tokio::time::sleep(self.pause()).await;
        }
    }

    fn pause(&self) -> Duration {
        let settings = &self.settings.get().reconcile;
        match settings.unknown_policy {
            UnknownPolicy::ReadBack => settings.first_after.clamp(Duration::from_millis(200), Duration::from_secs(30)),
            // There is nothing to wait for before a person is asked.
            UnknownPolicy::Hold => Duration::from_secs(1),
        }
    }

    /// One look. `true`: there is more to look at now.
    async fn round(&mut self) -> Result<bool, StoreError> {
        let policy = self.policy();
        let asked_at = self.clock.now();
        let doubts = self.store.doubts(&self.tenant.name, &policy, ROUND).await?;
        if doubts.is_empty() {
            return Ok(false);
        }
        let more = doubts.len() == ROUND as usize;
        let doubts: Vec<Doubt> =
            doubts.into_iter().map(|doubt| Doubt { watched: self.watched(&doubt), ..doubt }).collect();
        let settled: Vec<(Doubt, Settlement)> = futures_util::stream::iter(doubts)
            .map(|doubt| self.look(doubt, asked_at, &policy))
            .buffer_unordered(READS_AT_ONCE)
            .collect()
            .await;
        failpoint::reach("before-settle");
        self.store.settle(&settled).await?;
        failpoint::reach("after-settle");
        self.forget(&settled);
        self.log(&settled);
        self.nudge.notify_one();
        Ok(more)
    }

    fn policy(&self) -> ReconcilePolicy {
        let all = self.settings.get();
        let settings = &all.reconcile;
        ReconcilePolicy {
            // What goes straight to a person need not wait for Graph to show anything.
            first_after: match settings.unknown_policy {
                UnknownPolicy::ReadBack => settings.first_after,
                UnknownPolicy::Hold => Duration::ZERO,
            },
            settle_after: settings.settle_after,
            give_up_after: settings.give_up_after,
            clock_margin: settings.clock_margin,
            max_attempts: all.retry.max_attempts,
        }
    }

    fn watched(&mut self, doubt: &Doubt) -> Duration {
        let now = self.clock.now();
        now.since(*self.first_seen.entry((doubt.request_id, doubt.call_id)).or_insert(now))
    }

    /// What others settle is not heard of: it is forgotten when it must have been settled or held for long.
    fn forget(&mut self, settled: &[(Doubt, Settlement)]) {
        let ended = settled.iter().filter(|(_, settlement)| !matches!(settlement, Settlement::AskAgain { .. }));
        for (doubt, _) in ended {
            self.first_seen.remove(&(doubt.request_id, doubt.call_id));
        }
        let settings = &self.settings.get().reconcile;
        let (now, longest) = (self.clock.now(), (settings.settle_after + settings.give_up_after) * 2);
        self.first_seen.retain(|_, first_seen| now.since(*first_seen) <= longest);
    }

    async fn look(&self, mut doubt: Doubt, asked_at: BootInstant, policy: &ReconcilePolicy) -> (Doubt, Settlement) {
        let settlement = match self.settings.get().reconcile.unknown_policy {
            UnknownPolicy::ReadBack => {
                let read = self.tenant.graph.read_back(&doubt.subject()).await;
                doubt.read_took = self.clock.now().since(asked_at);
                settle(&doubt, &read, policy)
            }
            UnknownPolicy::Hold => {
                let detail = "reconcile.unknown_policy is \"hold\": a person decides".to_owned();
                Settlement::Hold { evidence: not_read(&detail), detail }
            }
        };
        (doubt, settlement)
    }

    /// Counts it, and says it: one line for what was settled, one for what a person must; that doubts stay open only where what is seen has changed.
    fn log(&mut self, settled: &[(Doubt, Settlement)]) {
        let tenant = &self.tenant.name;
        let count = |which: fn(&Settlement) -> bool| settled.iter().filter(|(_, settlement)| which(settlement)).count();
        let ended = count(|s| matches!(s, Settlement::Final { .. }));
        let queued_again = count(|s| matches!(s, Settlement::QueueAgain { .. }));
        let held = count(|s| matches!(s, Settlement::Hold { .. }));
        let open = count(|s| matches!(s, Settlement::AskAgain { .. }));
        let detail = settled.iter().find_map(|(_, settlement)| match settlement {
            Settlement::Hold { detail, .. } | Settlement::AskAgain { detail, .. } => Some(detail.as_str()),
            _ => None,
        });
        for (outcome, devices) in [("final", ended), ("queued_again", queued_again), ("held", held)] {
            self.tenant.metrics.settled.with_label_values(&[tenant.as_str(), outcome]).inc_by(devices as u64);
        }
        if held > 0 {
            error!(%tenant, held, detail, "devices in doubt could not be settled by reading back: a person must decide, and `reprovisiond status` says how");
        }
        let news = open > 0 && self.still_open.as_deref() != detail;
        if ended + queued_again > 0 || news {
            info!(%tenant, ended, queued_again, still_open = open, detail, "devices in doubt were read back");
        } else if open > 0 {
            debug!(%tenant, still_open = open, detail, "devices in doubt were read back, and nothing has changed");
        }
        self.still_open = detail.filter(|_| open > 0).map(ToOwned::to_owned);
    }
}
