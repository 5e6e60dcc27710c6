//! Hearing at once that requests were inserted.

use std::sync::Arc;

use sqlx::Executor as _;
use sqlx::postgres::{PgListener, PgPool};
use tokio::sync::Notify;
use tokio::time::timeout;
use tracing::info;

use super::connections::Connections;
use crate::store::StoreError;

/// Nudges for every notification, until the connection is lost or says nothing any more.
pub(super) async fn listen(connections: &Connections, nudge: &Arc<Notify>) -> Result<(), StoreError> {
    let Some(pool) = connections.for_listening() else {
        info!("statement-cache-capacity=0 says that a pooler stands before the database: no wake-ups, only polling");
        nudge.notify_one();
        return std::future::pending().await;
    };
    let ended = hear(&pool, connections, nudge).await;
    // Marked only: the connection is closed when the listener lets go of it, and may be one that no longer answers.
    drop(pool.close());
    ended
}

async fn hear(pool: &PgPool, connections: &Connections, nudge: &Arc<Notify>) -> Result<(), StoreError> {
    let patience = connections.patience();
    let silent = |_| StoreError::Unavailable(format!("the connection that listens gave no answer within {patience:?}"));
    let mut listener = timeout(patience, PgListener::connect_with(pool)).await.map_err(silent)??;
    // A lost connection ends this: the engine begins again, after a delay.
    listener.eager_reconnect(false);
    timeout(patience, listener.listen("reprovisiond")).await.map_err(silent)??;
    // Whatever was inserted between the last look and LISTEN.
    nudge.notify_one();
    loop {
        match timeout(patience, listener.try_recv()).await {
            Ok(heard) => match heard? {
                Some(_) => nudge.notify_one(),
                None => return Err(StoreError::Unavailable("the connection that listens was lost".to_owned())),
            },
            // Nothing to hear, or nobody there: a host that vanished says nothing either.
            Err(_) => {
                timeout(patience, listener.execute("SELECT 1")).await.map_err(silent)??;
            }
        }
    }
}
