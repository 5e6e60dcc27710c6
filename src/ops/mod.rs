//! How the daemon is watched: health, readiness, metrics and a page for people, over HTTP on this host only. Read only: GET and HEAD,
//! no state, no JavaScript. It reads what the process publishes in [`crate::metrics`] and asks the store, one question at a time, so
//! that no number of readers holds up the work loop.

mod exposition;
mod guard;
mod health;
mod listener;
mod needs;
mod page;
mod serve;
mod source;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

pub use listener::{ListenError, Listener};
pub use needs::{Need, needs};

use crate::clock::BootInstant;
use crate::config::Listen;
use crate::domain::id::{ManagedDeviceId, WorkerId};
use crate::metrics::Metrics;
use crate::store::{HistoryRow, ResultFilter, ResultRow, Store};
use crate::tabular::{Object, csv_cell, csv_line};
use source::{Source, Unread};

/// Rows of a CSV, at most: the newest.
const CSV_ROWS: u32 = 10_000;

/// What is watched.
pub struct Watched {
    /// What the process counts.
    pub metrics: Arc<Metrics>,
    /// The database, on connections that nobody else uses.
    pub store: Arc<dyn Store>,
    /// The database as it may be shown.
    pub database: String,
    /// This process.
    pub worker: WorkerId,
    /// How long the work loop may give no sign of life.
    pub silence: Duration,
    /// The order to stop.
    pub stop: CancellationToken,
}

/// What a handler has.
struct Ops {
    metrics: Arc<Metrics>,
    source: Source,
    database: String,
    worker: WorkerId,
    silence: Duration,
    stop: CancellationToken,
    started: BootInstant,
}

type Shared = State<Arc<Ops>>;

/// Serves until the process ends.
pub async fn serve(listener: Listener, watched: Watched) {
    serve::serve(&listener, router(watched)).await;
}

/// Opens what `listen` names; `None` if that is nothing.
///
/// # Errors
/// It is in use, is no socket, or the system refuses it.
pub fn listen(listen: &Listen) -> Result<Option<Listener>, ListenError> {
    Listener::open(listen)
}

fn router(watched: Watched) -> Router {
    let source = Source::new(watched.store, Arc::clone(&watched.metrics));
    let Watched { metrics, database, worker, silence, stop, .. } = watched;
    let ops = Arc::new(Ops { metrics, source, database, worker, silence, stop, started: BootInstant::now() });
    Router::new()
        .route("/", get(page::front))
        .route("/device", get(page::device))
        .route("/device.csv", get(device_csv))
        .route("/results.csv", get(results_csv))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(exposition::metrics))
        .route("/status.json", get(status_json))
        .route("/style.css", get(async || typed("text/css; charset=utf-8", page::STYLE)))
        .route("/icon.svg", get(async || typed("image/svg+xml", page::ICON)))
        .layer(axum::middleware::from_fn(guard::guard))
        .with_state(ops)
}

fn typed(kind: &'static str, body: impl Into<axum::body::Body>) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static(kind))], body.into()).into_response()
}

fn json(status: StatusCode, document: &impl Serialize) -> Response {
    let mut text = serde_json::to_string_pretty(document).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"));
    text.push('\n');
    (status, typed("application/json", text)).into_response()
}

impl axum::response::IntoResponse for Unread {
    fn into_response(self) -> Response {
        (StatusCode::SERVICE_UNAVAILABLE, typed("text/plain; charset=utf-8", format!("{self}\n"))).into_response()
    }
}

async fn status_json(State(ops): Shared) -> Response {
    match ops.source.overview().await {
        Ok(overview) => {
            let needs: Vec<String> = needs(&overview.status).iter().map(ToString::to_string).collect();
            let document = serde_json::json!({
                "needs": needs,
                "doubtful": overview.doubtful,
                "now": overview.status.now,
                "paused_devices": overview.status.paused_devices,
                "paused_requests": overview.status.paused_requests,
                "tenants": overview.status.tenants.iter().map(pending_only).collect::<Vec<_>>(),
                "workers": overview.status.workers,
                "worker": ops.worker,
                "version": env!("CARGO_PKG_VERSION"),
            });
            json(StatusCode::OK, &document)
        }
        Err(unread) => json(StatusCode::SERVICE_UNAVAILABLE, &serde_json::json!({ "error": unread.to_string() })),
    }
}

/// A tenant without the totals of all time, which are not asked for here: their zeros would be taken for counts.
fn pending_only(tenant: &crate::store::TenantStatus) -> serde_json::Value {
    const TOTALS: [&str; 7] =
        ["successful", "failed", "not_found", "not_supported", "expired", "cancelled", "suppressed"];
    let mut value = serde_json::to_value(tenant).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|name, _| {
            let total = name.starts_with("completion_") && name != "completion_followed";
            !total && !TOTALS.contains(&name.as_str())
        });
    }
    value
}

/// `?id=`, as a person has typed it.
fn asked_device(query: &BTreeMap<String, String>) -> Result<ManagedDeviceId, String> {
    let given = query.get("id").map_or("", |id| id.trim());
    given.parse().map_err(|_| given.to_owned())
}

async fn device_csv(State(ops): Shared, Query(query): Query<BTreeMap<String, String>>) -> Response {
    let Ok(device) = asked_device(&query) else {
        let text = "id is not a device ID: write it as 30d0e128-de93-41dc-89ec-33d84bb662a0\n";
        return (StatusCode::BAD_REQUEST, typed("text/plain; charset=utf-8", text)).into_response();
    };
    match ops.source.ask(move |store| async move { store.device_history(device, CSV_ROWS).await }).await {
        Ok(history) => csv(&format!("device-{device}.csv"), HistoryRow::COLUMNS, &history.events),
        Err(unread) => unread.into_response(),
    }
}

async fn results_csv(State(ops): Shared) -> Response {
    let newest = |store: Arc<dyn Store>| async move {
        let filter = ResultFilter { all_attempts: true, ..ResultFilter::default() };
        let before = store.results_before(&filter, CSV_ROWS).await?;
        store.results(&filter, before, CSV_ROWS).await
    };
    match ops.source.ask(newest).await {
        Ok(rows) => csv("results.csv", ResultRow::COLUMNS, &rows),
        Err(unread) => unread.into_response(),
    }
}

fn csv(file: &str, columns: &[&str], rows: &[impl Serialize]) -> Response {
    let mut text = Vec::new();
    let written = csv_line(&mut text, columns.iter()).and_then(|()| {
        rows.iter().try_for_each(|row| {
            let cells = Object::of(row)?.0.into_iter().map(|(_, value)| csv_cell(value));
            csv_line(&mut text, cells)
        })
    });
    if let Err(error) = written {
        return (StatusCode::INTERNAL_SERVER_ERROR, typed("text/plain; charset=utf-8", format!("{error}\n")))
            .into_response();
    }
    let mut response = typed("text/csv; charset=utf-8; header=present", text);
    if let Ok(disposition) = HeaderValue::from_str(&format!("attachment; filename=\"{file}\"")) {
        response.headers_mut().insert(header::CONTENT_DISPOSITION, disposition);
    }
    response
}
