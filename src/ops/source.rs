//! The one door to the database: one question at a time, each bounded, and the overview no oftener than every few seconds.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock::BootInstant;
use crate::metrics::Metrics;
use crate::store::{Overview, Store, StoreError};

/// How old an overview may be. One that was dear is good for longer.
const GOOD_FOR: Duration = Duration::from_secs(2);

/// How often longer than its question an overview is good for: what readers cost is a tenth of one connection at most.
const TIMES_ITS_COST: u32 = 10;

/// How long a reader waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a question may take before it is dropped, whoever still waits.
const LONGEST: Duration = Duration::from_secs(30);

/// Why the database could not be asked.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Unread {
    /// It says so.
    #[error("{0}")]
    Failed(String),
    /// It did not answer in time, or is still busy with what was asked before.
    #[error("the database gave no answer within {PATIENCE:?}")]
    Slow,
}

/// The database, and what it last said.
pub(super) struct Source {
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    /// Held while a question is under way, and by nobody who only waits for one.
    gate: Arc<tokio::sync::Mutex<()>>,
    last: Arc<Mutex<Option<Kept>>>,
}

struct Kept {
    overview: Arc<Overview>,
    good_until: BootInstant,
}

impl Source {
    pub(super) fn new(store: Arc<dyn Store>, metrics: Arc<Metrics>) -> Self {
        Self { store, metrics, gate: Arc::default(), last: Arc::default() }
    }

    /// What holds now, or did a moment ago. The schema is looked at too: a newer one may have come while this process runs.
    pub(super) async fn overview(&self) -> Result<Arc<Overview>, Unread> {
        if let Some(overview) = self.kept() {
            return Ok(overview);
        }
        let last = Arc::clone(&self.last);
        let question = move |store: Arc<dyn Store>| async move {
            // Whoever came first may have asked it while this one waited.
            if let Some(overview) = fresh(&last) {
                return Ok(overview);
            }
            let asked_at = BootInstant::now();
            store.check_schema().await?;
            let overview = Arc::new(store.overview().await?);
            let good_for = GOOD_FOR.max(asked_at.elapsed() * TIMES_ITS_COST);
            let kept = Kept { overview: Arc::clone(&overview), good_until: BootInstant::now().plus(good_for) };
            *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
            Ok(overview)
        };
        self.ask(question).await
    }

    fn kept(&self) -> Option<Arc<Overview>> {
        fresh(&self.last)
    }

    /// Asks something once nothing else is being asked. The question goes on if the reader leaves, so that no second one is put
    /// beside it.
    pub(super) async fn ask<T, F>(
        &self,
        question: impl FnOnce(Arc<dyn Store>) -> F + Send + 'static,
    ) -> Result<T, Unread>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let (store, metrics) = (Arc::clone(&self.store), Arc::clone(&self.metrics));
        let asked = async {
            let turn = Arc::clone(&self.gate).lock_owned().await;
            let (tell, told) = oneshot::channel();
            tokio::spawn(async move {
                let _turn = turn;
                let asked_at = BootInstant::now();
                let answer = match tokio::time::timeout(LONGEST, question(store)).await {
                    Ok(answer) => answer.map_err(|error| Unread::Failed(error.to_string())),
                    Err(_) => Err(Unread::Slow),
                };
                metrics.asked("ops", asked_at.elapsed(), &answer);
                // The reader may be gone.
                let _ = tell.send(answer);
            });
            told.await.unwrap_or(Err(Unread::Slow))
        };
        tokio::time::timeout(PATIENCE, asked).await.unwrap_or(Err(Unread::Slow))
    }
}

fn fresh(last: &Mutex<Option<Kept>>) -> Option<Arc<Overview>> {
    let last = last.lock().unwrap_or_else(PoisonError::into_inner);
    let kept = last.as_ref().filter(|kept| !kept.good_until.remaining().is_zero())?;
    Some(Arc::clone(&kept.overview))
}
