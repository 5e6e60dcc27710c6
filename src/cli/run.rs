//! `reprovisiond run`: the daemon.

use std::sync::Arc;

use clap::Args;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Exit, Failure, Global, database, reload};
use crate::config::{self, Config, Listen, Sources};
use crate::domain::id::{TenantName, WorkerId};
use crate::engine::{Engine, EngineError, Served, Settings, Surroundings};
use crate::graph::{Graph, GraphClient};
use crate::lifecycle::{self, Manager};
use crate::ops::{self, Listener, Watched};
use crate::store;
use crate::telemetry;

/// Run the daemon until SIGTERM or SIGINT
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  reprovisiond run --config /etc/reprovisiond/reprovisiond.toml
  REPROVISIOND_LOG=debug reprovisiond run

The first SIGTERM or SIGINT lets calls in flight end within worker.drain_timeout and exits 0; a second leaves at once. SIGHUP
reloads the configuration. Logs go to stderr: JSON lines, short lines on a terminal, or entries in systemd's journal.

With ops.listen set it also serves, on this host only and read only: /healthz, /readyz, /metrics for Prometheus, /status.json,
and a page for people at /.")]
pub(crate) struct RunArgs {}

pub(crate) async fn run(global: &Global, _: &RunArgs) -> Result<(), Failure> {
    let sources = || Sources::from_process(global.config.clone(), global.database.clone());
    let loaded = config::load(&sources()).map_err(|mistakes| Failure::new(Exit::Configuration, mistakes))?;
    telemetry::init().map_err(|message| Failure::new(Exit::Configuration, message))?;
    for warning in &loaded.warnings {
        warn!(detail = warning.to_string(), "{}", reload::DOUBTFUL);
    }
    let config = loaded.config.clone();
    let signals = lifecycle::listen(Exit::Failure as u8)
        .map_err(|error| Failure::new(Exit::Failure, format!("signals: {error}")))?;
    let (patience, watched) = (config.database.patience, config.ops.listen != Listen::Off);
    let manager = Arc::new(Manager::of_this_process(patience, watched.then_some(patience)));
    let worker = WorkerId::fresh();
    // Before anything is taken: a place that cannot be had is told at the start.
    let listener = ops::listen(&config.ops.listen).map_err(|error| Failure::new(Exit::Failure, error))?;
    let url = &config.database.url;
    let store = database::open_with(url, false, patience).await?;
    let tenants: Vec<TenantName> = config.tenants.keys().cloned().collect();
    store.register_tenants(&tenants).await.map_err(|error| database::at(url, error))?;
    let surroundings = Surroundings { pulse: Arc::<Manager>::clone(&manager), ..Surroundings::default() };
    let settings = Settings::from(&config);
    let engine = Arc::new(Engine::new(Arc::clone(&store), served(&config)?, settings, worker, surroundings));
    engine.start().await.map_err(|error| match error {
        EngineError::Store(error) => database::at(url, error),
        EngineError::Task(_) => error.into(),
    })?;
    let watching = match listener {
        None => None,
        Some(listener) => Some(serve(listener, &config, &engine, worker, signals.stop.clone()).await?),
    };
    info!(
        worker_id = %worker,
        version = env!("CARGO_PKG_VERSION"),
        database = url.to_string(),
        tenants = tenants.len(),
        action = config.graph.action.as_str(),
        "started"
    );
    manager.ready();
    let stopped = tokio::select! {
        stopped = engine.run_as_task(signals.stop.clone()) => stopped,
        () = reload::serve(&signals, sources, loaded, &engine, &manager) => unreachable!("it serves for good"),
        () = manager.tell_status(&*store) => unreachable!("it tells for good"),
    };
    if let Some(watching) = watching {
        watching.abort();
        // Its socket goes with it.
        let _ = watching.await;
    }
    let stopped = stopped?;
    store.close().await;
    match (stopped.calls_left, stopped.untold) {
        (0, None) => info!("stopped"),
        (calls, None) => warn!(
            calls,
            "stopped at the drain deadline: calls without an answer are unknown now, and are not sent again without evidence"
        ),
        (calls, Some(error)) => warn!(
            calls,
            worker_id = %worker,
            error,
            "stopped without the database: calls without a recorded answer become unknown at the next start, or when this worker's lease lapses"
        ),
    }
    Ok(())
}

/// Lets the daemon be watched, beside its work.
async fn serve(
    listener: Listener,
    config: &Config,
    engine: &Engine,
    worker: WorkerId,
    stop: CancellationToken,
) -> Result<JoinHandle<()>, Failure> {
    let (url, patience) = (&config.database.url, config.database.patience);
    info!(address = listener.address(), "health, metrics and the page are served");
    let watched = Watched {
        metrics: engine.metrics(),
        store: store::open_to_watch(url, patience).await.map_err(|error| database::at(url, error))?,
        database: url.to_string(),
        worker,
        // The loop beats within `patience` of its last step, which takes no longer than that; and a third for luck.
        silence: patience * 3,
        stop,
    };
    Ok(tokio::spawn(ops::serve(listener, watched)))
}

/// One client for each tenant.
fn served(config: &Config) -> Result<Vec<Served>, Failure> {
    config
        .tenants
        .iter()
        .map(|(name, tenant)| match GraphClient::new(tenant, &config.graph) {
            Ok(client) => Ok(Served {
                name: name.clone(),
                graph: Arc::new(client) as Arc<dyn Graph>,
                action: tenant.action,
                limits: tenant.limits.clone(),
            }),
            Err(error) => Err(Failure::new(Exit::Configuration, format!("tenants.{name}: {error}"))),
        })
        .collect()
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Store(error) => error.into(),
            EngineError::Task(_) => Self::new(Exit::Failure, error),
        }
    }
}
