//! Follows what Graph has accepted until it shows an end, beside the queue: a task for each tenant, that takes no call's slot
//! and no lock of the queue's, so that one tenant's trouble holds up neither another nor any call.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tracing::{info, warn};

use super::{Live, Tenant};
use crate::clock::Clock;
use crate::domain::budget::Budget;
use crate::domain::completion::{CompletionPolicy, CompletionState, Judgement, Watch, judge};
use crate::domain::read_back::ReadBack;
use crate::failpoint;
use crate::store::{CompletionClaim, Store, StoreError};

/// Reads under way at once for one tenant. No more are claimed, so that what is charged to the budget leaves at once.
const READS_AT_ONCE: u32 = 8;

/// The longest time until the database is asked again after it has failed.
const DATABASE_AGAIN: Duration = Duration::from_secs(30);

/// The shortest time between two rounds, whatever the settings.
const LEAST_PAUSE: Duration = Duration::from_millis(50);

const ENDS: [CompletionState; 5] = [
    CompletionState::Done,
    CompletionState::Failed,
    CompletionState::Canceled,
    CompletionState::NotSupported,
    CompletionState::Untracked,
];

/// Follows the accepted reprovisions of one tenant.
pub(super) struct Follower {
    pub(super) store: Arc<dyn Store>,
    pub(super) tenant: Arc<Tenant>,
    pub(super) settings: Arc<Live>,
    pub(super) clock: Arc<dyn Clock>,
}

/// What was last seen to be wrong, so that it is logged once, and its end once.
#[derive(Default)]
struct Trouble {
    database: bool,
    graph: Option<Unread>,
}

/// Why reads failed.
struct Unread {
    reason: String,
    /// There was a round of several that all failed.
    whole: bool,
}

impl Follower {
    /// Runs for as long as the process lives.
    pub(super) async fn run(self) {
        let mut trouble = Trouble::default();
        loop {
            let pause = match self.round(&mut trouble).await {
                Ok(pause) => {
                    if std::mem::take(&mut trouble.database) {
                        info!(tenant = %self.tenant.name, "accepted reprovisions are followed again");
                    }
                    pause
                }
                Err(problem) => {
                    if !std::mem::replace(&mut trouble.database, true) {
                        warn!(
                            tenant = %self.tenant.name,
                            error = problem.to_string(),
                            "accepted reprovisions cannot be followed until the database answers again; none is lost"
                        );
                    }
                    DATABASE_AGAIN
                }
            };
            // What is accepted meanwhile is not due before: nobody need say so.
            tokio::time::sleep(pause.min(self.settings.get().completion.first_after).max(LEAST_PAUSE)).await;
        }
    }

    /// Looks at what is due and within the budget. Returns the time until there may be more.
    async fn round(&self, trouble: &mut Trouble) -> Result<Duration, StoreError> {
        let all = self.settings.get();
        let settings = &all.completion;
        let claim = CompletionClaim {
            tenant: &self.tenant.name,
            limit: READS_AT_ONCE,
            budget: Budget { rate: settings.reads },
            put_off: settings.shortest_delay,
        };
        let asked_at = self.clock.now();
        let claimed = self.store.claim_completions(&claim).await?;
        let pause = claimed.look_again_in.unwrap_or(Duration::MAX);
        if claimed.watches.is_empty() {
            return Ok(pause);
        }
        failpoint::reach("after-claim-of-completions");
        let policy = CompletionPolicy {
            shortest_delay: settings.shortest_delay,
            longest_delay: settings.longest_delay,
            give_up_after: settings.give_up_after,
            clock_margin: all.reconcile.clock_margin,
        };
        let looks = join_all(claimed.watches.into_iter().map(async |mut watch| {
            let read = self.tenant.graph.remote_actions(&watch.subject()).await;
            watch.read_took = self.clock.now().since(asked_at);
            let judgement = judge(&watch, &read, &policy);
            (watch, judgement, read)
        }))
        .await;
        self.note_graph(&looks, trouble);
        let leave_alone = looks.iter().filter_map(|(.., read)| asks_to_wait(read)).max();
        let judged: Vec<(Watch, Judgement)> =
            looks.into_iter().map(|(watch, judgement, _)| (watch, judgement)).collect();
        failpoint::reach("before-completion");
        let ended = self.store.record_completions(&self.tenant.name, &judged, leave_alone).await?;
        failpoint::reach("after-completion");
        if ended > 0 {
            self.log(&judged);
        }
        // The pause was told before the looks.
        Ok(pause.saturating_sub(self.clock.now().since(asked_at)))
    }

    /// A Graph that does not let itself be read is logged once, and once that it does. A single device that cannot be read, perhaps
    /// because it has another ID since, is no such thing: between looks at others it must not be logged again and again.
    fn note_graph(&self, looks: &[(Watch, Judgement, ReadBack)], trouble: &mut Trouble) {
        let failed: Vec<&str> = looks
            .iter()
            .filter_map(|(.., read)| match read {
                ReadBack::Failed { reason, .. } => Some(reason.as_str()),
                ReadBack::Seen(_) | ReadBack::Found(_) => None,
            })
            .collect();
        let whole = failed.len() == looks.len() && looks.len() > 1;
        match (failed.first(), &mut trouble.graph) {
            (Some(reason), Some(known)) if known.reason == *reason => known.whole |= whole,
            (Some(reason), known) => {
                warn!(
                    tenant = %self.tenant.name,
                    reads = looks.len(),
                    failed_reads = failed.len(),
                    error = reason,
                    "what became of an accepted reprovision could not be read; it is read again until completion.give_up_after"
                );
                *known = Some(Unread { reason: (*reason).to_owned(), whole });
            }
            (None, Some(known)) if known.whole => {
                info!(tenant = %self.tenant.name, "what becomes of accepted reprovisions can be read again");
                trouble.graph = None;
            }
            (None, _) => {}
        }
    }

    /// Counts it, and says it: the one line of a round that ended something.
    fn log(&self, judged: &[(Watch, Judgement)]) {
        let count = |state: CompletionState| {
            judged.iter().filter(|(_, j)| matches!(j, Judgement::Ended(ended) if ended.state == state)).count()
        };
        let [done, failed, canceled, not_supported, untracked] = ENDS.map(count);
        for (state, devices) in ENDS.into_iter().zip([done, failed, canceled, not_supported, untracked]) {
            let ended = &self.tenant.metrics.completions;
            ended.with_label_values(&[self.tenant.name.as_str(), state.as_str()]).inc_by(devices as u64);
        }
        let open = judged.iter().filter(|(_, judgement)| matches!(judgement, Judgement::LookAgain { .. })).count();
        let bad = judged.iter().find_map(|(watch, judgement)| match judgement {
            Judgement::Ended(ended) if ended.state != CompletionState::Done => {
                Some((watch.device.to_string(), ended.detail.as_deref()))
            }
            _ => None,
        });
        let tenant = &self.tenant.name;
        match bad {
            None => info!(%tenant, done, still_open = open, "reprovisions are done"),
            Some((device, detail)) => warn!(
                %tenant,
                done,
                failed,
                canceled,
                not_supported,
                untracked,
                still_open = open,
                device,
                detail,
                "reprovisions that Graph had accepted did not all end well: `reprovisiond results` shows which"
            ),
        }
    }
}

/// Graph's wish to be left alone.
fn asks_to_wait(read: &ReadBack) -> Option<Duration> {
    match read {
        ReadBack::Failed { retry_after, .. } => *retry_after,
        ReadBack::Seen(_) | ReadBack::Found(_) => None,
    }
}
