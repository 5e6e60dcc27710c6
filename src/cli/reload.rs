//! What SIGHUP does: the configuration is read again, and what may change while the daemon works is put in force at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::config::{self, Loaded, Reload, Sources};
use crate::engine::{Engine, Settings};
use crate::lifecycle::{Manager, Signals};

/// Rereads the configuration at each SIGHUP until the order to stop, of which the service manager is told. Never ends.
pub(super) async fn serve(
    signals: &Signals,
    sources: impl Fn() -> Sources,
    mut running: Loaded,
    engine: &Engine,
    manager: &Arc<Manager>,
) {
    loop {
        tokio::select! {
            biased;
            () = signals.stop.cancelled() => break,
            () = signals.reload.notified() => {}
        }
        manager.reloading();
        running = again(&sources(), running, engine, &signals.stop).await;
        manager.ready();
    }
    manager.stopping(running.config.worker.drain_timeout);
    std::future::pending::<()>().await;
}

/// What is in force afterwards.
async fn again(sources: &Sources, running: Loaded, engine: &Engine, stop: &CancellationToken) -> Loaded {
    const REFUSED: &str = "the configuration is not reloaded, and the one in force stays";
    let read = match config::load(sources) {
        Ok(read) => read,
        Err(mistakes) => {
            error!(mistakes = mistakes.to_string(), "{REFUSED}");
            return running;
        }
    };
    for warning in &read.warnings {
        warn!("{warning}");
    }
    let Reload { loaded, changes } = match config::reload(&running, &read) {
        Ok(reload) => reload,
        Err(broken) => {
            error!(mistakes = broken.join("\n"), "{REFUSED}");
            return running;
        }
    };
    let limits: BTreeMap<_, _> =
        loaded.config.tenants.iter().map(|(name, tenant)| (name.clone(), tenant.limits.clone())).collect();
    tokio::select! {
        // Once it stops, the work loop looks at nothing any more.
        () = stop.cancelled() => return running,
        () = engine.reload(Settings::from(&loaded.config), limits) => {}
    }
    let list = |restart: bool| {
        let those = changes.iter().filter(|change| change.restart.is_some() == restart);
        those.map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    let (changed, needs_restart) = (list(false), list(true));
    match (changed.is_empty(), needs_restart.is_empty()) {
        (true, true) => info!("the configuration is reloaded: nothing has changed"),
        (_, true) => info!(changed, "the configuration is reloaded"),
        (true, false) => warn!(needs_restart, "the configuration is reloaded: a change needs a restart"),
        (false, false) => warn!(changed, needs_restart, "the configuration is reloaded: a change needs a restart"),
    }
    loaded
}
