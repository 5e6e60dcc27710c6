//! `/metrics`: what the process has counted, and what the database says now. Without the database the first is there all the same.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use prometheus::{GaugeVec, IntGaugeVec, Opts, Registry};

use super::{Ops, Shared, typed};
use crate::clock::{BootInstant, host_time};
use crate::store::Overview;

pub(super) async fn metrics(State(ops): Shared) -> Response {
    let overview = ops.source.overview().await.ok();
    match gather(&ops, overview.as_deref()).and_then(|registry| ops.metrics.text(BootInstant::now(), &registry)) {
        Ok(text) => typed("text/plain; version=0.0.4; charset=utf-8", text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// Gauges are made anew for each scrape: what is not there any more must not stay.
struct Gauges(Registry);

impl Gauges {
    fn whole(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
        let gauge = IntGaugeVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(gauge.clone()))?;
        Ok(gauge)
    }

    fn real(&self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec, prometheus::Error> {
        let gauge = GaugeVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(gauge.clone()))?;
        Ok(gauge)
    }
}

fn gather(ops: &Ops, overview: Option<&Overview>) -> Result<Registry, prometheus::Error> {
    let gauges = Gauges(Registry::new());
    process(&gauges, ops)?;
    let up = gauges.whole(
        "reprovisiond_database_up",
        "Whether the database answered this scrape, with this program's schema.",
        &[],
    )?;
    up.with_label_values(NONE).set(i64::from(overview.is_some()));
    if let Some(overview) = overview {
        queue(&gauges, ops, overview)?;
        tenants(&gauges, ops, overview)?;
    }
    Ok(gauges.0)
}

const NONE: &[&str] = &[];

fn process(gauges: &Gauges, ops: &Ops) -> Result<(), prometheus::Error> {
    let state = ops.metrics.now();
    let build = gauges.whole("reprovisiond_build_info", "1, with the version of the program.", &["version"])?;
    build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    let silent = gauges.real(
        "reprovisiond_work_loop_silent_seconds",
        "Time since the work loop's last sign of life; /healthz fails beyond a bound.",
        &[],
    )?;
    silent.with_label_values(NONE).set(state.beat_at.unwrap_or(ops.started).elapsed().as_secs_f64());
    let lease = gauges.whole(
        "reprovisiond_lease_held",
        "Whether this worker's lease holds; nothing is sent without it.",
        &[],
    )?;
    lease.with_label_values(NONE).set(i64::from(state.lease_until.is_some_and(|until| !until.remaining().is_zero())));
    let expiry = gauges.real(
        "reprovisiond_token_expiry_timestamp_seconds",
        "When the token at hand expires, in Unix time; absent while there is none.",
        &["tenant"],
    )?;
    let failing =
        gauges.whole("reprovisiond_token_failing", "Whether the last attempt to get a token failed.", &["tenant"])?;
    let wall = host_time().timestamp_millis();
    for (tenant, state) in &state.tenants {
        if let Some(at) = state.token_expires_at.filter(|at| *at > BootInstant::now()) {
            #[allow(clippy::cast_precision_loss, reason = "milliseconds of Unix time fit 53 bits")]
            let wall = wall as f64 / 1000.0;
            expiry.with_label_values(&[tenant]).set((wall + at.remaining().as_secs_f64()).round());
        }
        failing.with_label_values(&[tenant]).set(i64::from(state.token_problem.is_some()));
    }
    Ok(())
}

fn queue(gauges: &Gauges, ops: &Ops, overview: &Overview) -> Result<(), prometheus::Error> {
    let configured = ops.metrics.now().tenants;
    let now = overview.status.now;
    let entries = gauges.whole(
        "reprovisiond_queue_requests",
        "Requests without a final result, by state.",
        &["tenant", "state"],
    )?;
    let oldest = gauges.real("reprovisiond_queue_oldest_age_seconds", "Age of the oldest request in this state: since it became due, or since its call was sent; 0 where there is none.", &["tenant", "state"])?;
    let age = |at: chrono::DateTime<chrono::Utc>| (now - at).to_std().unwrap_or_default().as_secs_f64();
    for tenant in overview.status.tenants.iter().filter(|tenant| configured.contains_key(&tenant.tenant)) {
        let name = tenant.tenant.as_str();
        let counts = [
            ("ready", tenant.ready),
            ("waiting", tenant.waiting),
            ("sending", tenant.sending),
            ("unknown", tenant.unknown),
            ("held", tenant.held),
        ];
        for (state, count) in counts {
            entries.with_label_values(&[name, state]).set(count);
            if state != "waiting" {
                oldest.with_label_values(&[name, state]).set(0.0);
            }
        }
        oldest.with_label_values(&[name, "ready"]).set(tenant.oldest_ready_at.map_or(0.0, age));
    }
    for call in overview.oldest.iter().filter(|call| configured.contains_key(&call.tenant)) {
        oldest.with_label_values(&[&call.tenant, &call.state]).set(age(call.sent_at));
    }
    Ok(())
}

fn tenants(gauges: &Gauges, ops: &Ops, overview: &Overview) -> Result<(), prometheus::Error> {
    let configured = ops.metrics.now().tenants;
    let now = overview.status.now;
    let doubts = gauges.whole(
        "reprovisiond_calls_in_doubt",
        "Calls whose whole outcome is in doubt; at limits.open_doubts of them no further one is made.",
        &["tenant"],
    )?;
    let paused = gauges.whole("reprovisiond_tenant_paused", "Whether a person has paused the tenant.", &["tenant"])?;
    let followed = gauges.whole(
        "reprovisiond_completions_followed",
        "Accepted reprovisions whose end Graph has not shown yet.",
        &["tenant"],
    )?;
    let blocked = gauges.whole(
        "reprovisiond_tenant_blocked",
        "Whether the tenant refuses calls until a person mends the cause.",
        &["tenant"],
    )?;
    let waits = gauges.real(
        "reprovisiond_tenant_wait_remaining_seconds",
        "Time until the tenant may be called again, whoever was told to wait.",
        &["tenant"],
    )?;
    for tenant in overview.status.tenants.iter().filter(|tenant| configured.contains_key(&tenant.tenant)) {
        let name = [tenant.tenant.as_str()];
        doubts.with_label_values(&name).set(tenant.calls_in_doubt);
        followed.with_label_values(&name).set(tenant.completion_followed);
        paused.with_label_values(&name).set(i64::from(tenant.paused_at.is_some()));
        blocked.with_label_values(&name).set(i64::from(tenant.blocked_at.is_some()));
        let rest = tenant.wait_until.and_then(|until| (until - now).to_std().ok()).unwrap_or_default();
        waits.with_label_values(&name).set(rest.as_secs_f64());
    }
    let subjects = gauges.whole(
        "reprovisiond_paused",
        "Devices and pending requests that are paused by themselves.",
        &["scope"],
    )?;
    subjects.with_label_values(&["device"]).set(overview.status.paused_devices);
    subjects.with_label_values(&["request"]).set(overview.status.paused_requests);
    let workers = gauges.whole("reprovisiond_workers", "Workers on this database whose lease holds.", &[])?;
    workers.with_label_values(NONE).set(i64::try_from(overview.status.workers.len()).unwrap_or(i64::MAX));
    Ok(())
}
