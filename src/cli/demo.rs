//! `reprovisiond demo`: the whole job in under a minute, against a simulated Graph in this process.

use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sqlx::{Connection as _, PgConnection, SqliteConnection};
use tokio_util::sync::CancellationToken;

use super::{Exit, Failure, Global, database};
use crate::clock::BootInstant;
use crate::config::{self, DatabaseKind, DatabaseUrl};
use crate::domain::action::Action;
use crate::domain::id::{ManagedDeviceId, TenantName, WorkerId};
use crate::domain::lifecycle::{Bucket, Source};
use crate::engine::{Engine, Served, Settings, Surroundings};
use crate::graph::{Graph, GraphClient};
use crate::simulator::{self, Behaviour, Simulator};
use crate::store::{ResultFilter, Store, TenantStatus};
use crate::telemetry;

/// Watch the daemon work, against a simulated Graph in this process
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  reprovisiond demo
  reprovisiond demo --devices 5000
  reprovisiond demo --database postgres://localhost/scratch
  reprovisiond demo --action cloud-pc-reprovision

Makes demo.db in this directory (or uses the empty database of --database), inserts requests by plain SQL, runs the daemon on
them and shows what came of it. On the way the simulated Graph throttles once, is unavailable once, and once does the work and
loses its answer: the daemon reads back what became of it instead of sending it again. Nothing is sent to Microsoft.")]
pub(crate) struct DemoArgs {
    /// How many devices are to be reprovisioned
    #[arg(long, value_name = "N", default_value_t = 250, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    devices: u32,
    /// The Graph action that is called
    #[arg(long, value_name = "ACTION", default_value = Action::BulkReprovisionCloudPc.as_str(), value_parser = action())]
    action: Action,
}

fn action() -> impl clap::builder::TypedValueParser<Value = Action> {
    use clap::builder::TypedValueParser as _;
    let words = Action::ALL.iter().map(|action| action.as_str());
    clap::builder::PossibleValuesParser::new(words).try_map(|word| word.parse::<Action>())
}

/// The tenant's name. A daemon that serves real tenants never takes its requests.
const TENANT: &str = "demo";

/// What a producer needs to know, and all that the demo does to ask for something.
const INSERT_SQLITE: &str = "INSERT INTO reprovision_requests (tenant, managed_device_id, requested_by, reason) VALUES ('demo', ?1, 'demo', ?2)";
const INSERT_POSTGRES: &str = "INSERT INTO reprovision_requests (tenant, managed_device_id, requested_by, reason) VALUES ('demo', $1, 'demo', $2)";

pub(crate) async fn run(global: &Global, args: &DemoArgs) -> Result<(), Failure> {
    let tenant: TenantName = TENANT.parse().map_err(|error| Failure::new(Exit::Failure, error))?;
    let url = DatabaseUrl::parse(global.database.as_deref().unwrap_or("sqlite:demo.db"))
        .map_err(|error| Failure::new(Exit::Usage, format!("--database: {error}")))?;
    let store = prepare(&url, &tenant).await?;
    let simulator = simulator(args.devices)?;

    say(&format!(
        "Simulated Graph:  {}\nQueue:            {url}\nRequests:         {} rows inserted with\n  {}\n",
        simulator.graph_url(),
        args.devices,
        "INSERT INTO reprovision_requests (tenant, managed_device_id, requested_by, reason) VALUES (…)"
    ))?;
    // What Graph refuses comes last: a read-back cannot show that, so a doubt about it would outlast the settling time.
    let mut devices = simulator.devices().to_vec();
    devices.sort_by_key(|device| !matches!(device.behaviour, Behaviour::Succeeds | Behaviour::FailsLater));
    let devices: Vec<ManagedDeviceId> = devices.iter().map(|device| device.managed_device_id).collect();
    insert(&url, &devices).await?;

    let started = BootInstant::now();
    let before = store.results(&ResultFilter::default(), None, 1).await?;
    debug_assert!(before.is_empty(), "a demo begins with an empty database");
    work(&store, &simulator, &tenant, args).await?;
    let seconds = started.elapsed().as_secs_f32();

    let status = store.status().await?;
    let mine = status.tenants.iter().find(|t| t.tenant == TENANT).cloned().unwrap_or_default();
    say(&report(&store, &simulator, &mine, &url, seconds).await?)?;
    store.close().await;
    simulator.shutdown().await.map_err(|error| Failure::new(Exit::Failure, error))
}

fn say(text: &str) -> Result<(), Failure> {
    super::print(text)
}

/// An empty database with this program's schema. One that holds anything but an earlier demo is refused.
async fn prepare(url: &DatabaseUrl, tenant: &TenantName) -> Result<Arc<dyn Store>, Failure> {
    if let DatabaseKind::Sqlite { path } = url.kind()
        && path.exists()
    {
        let old = database::open_url(url, false).await.map_err(|mut failure| {
            failure.message =
                format!("{}: the demo makes a new file, and this one is no earlier demo's", failure.message);
            failure
        })?;
        only_a_demo(&*old, url).await?;
        old.close().await;
        database::remove_file(&path)?;
    }
    let store = database::open_url(url, true).await?;
    store.migrate().await.map_err(|error| database::at(url, error))?;
    only_a_demo(&*store, url).await?;
    if !store.results(&ResultFilter { all_attempts: true, ..ResultFilter::default() }, None, 1).await?.is_empty() {
        return Err(Failure::new(
            Exit::Usage,
            format!(
                "{url} holds the results of an earlier demo, and results are never deleted: give an empty database"
            ),
        ));
    }
    store.register_tenants(std::slice::from_ref(tenant)).await?;
    Ok(store)
}

async fn only_a_demo(store: &dyn Store, url: &DatabaseUrl) -> Result<(), Failure> {
    match store.status().await?.tenants.iter().find(|tenant| tenant.tenant != TENANT) {
        None => Ok(()),
        Some(other) => Err(Failure::new(
            Exit::Usage,
            format!("{url} holds a real queue (tenant {}): the demo wants an empty database of its own", other.tenant),
        )),
    }
}

/// A fleet that holds the reference page's two devices, and three faults on the way.
fn simulator(devices: u32) -> Result<Simulator, Failure> {
    let faults = "429:2@2,503@4,reset-after@6".parse().map_err(|error| Failure::new(Exit::Failure, error))?;
    let options = simulator::Options {
        devices: devices.saturating_sub(2) as usize,
        latency: Duration::from_millis(300),
        faults,
        ..simulator::Options::default()
    };
    Simulator::start(options).map_err(|error| Failure::new(Exit::Failure, error))
}

/// As any producer would, in one transaction.
async fn insert(url: &DatabaseUrl, devices: &[ManagedDeviceId]) -> Result<(), Failure> {
    let failed = |error: sqlx::Error| database::at(url, error.into());
    let reason = "to see how it works";
    match url.kind() {
        DatabaseKind::Sqlite { .. } => {
            let mut connection = SqliteConnection::connect(url.expose()).await.map_err(failed)?;
            let mut tx = connection.begin().await.map_err(failed)?;
            for device in devices {
                let insert = sqlx::query(INSERT_SQLITE).bind(device.to_string()).bind(reason);
                insert.execute(&mut *tx).await.map_err(failed)?;
            }
            tx.commit().await.map_err(failed)
        }
        DatabaseKind::Postgres => {
            let mut connection = PgConnection::connect(url.expose()).await.map_err(failed)?;
            let mut tx = connection.begin().await.map_err(failed)?;
            for device in devices {
                let insert = sqlx::query(INSERT_POSTGRES).bind(device.to_string()).bind(reason);
                insert.execute(&mut *tx).await.map_err(failed)?;
            }
            tx.commit().await.map_err(failed)
        }
    }
}

/// Runs the daemon's engine until the queue is empty.
async fn work(
    store: &Arc<dyn Store>,
    simulator: &Simulator,
    tenant: &TenantName,
    args: &DemoArgs,
) -> Result<(), Failure> {
    let devices = args.devices;
    let bar = progress(devices);
    telemetry::init_on(&bar);
    let served_as = simulated_tenant(simulator, args.action)?;
    let graph = config::Graph { call_timeout: Duration::from_secs(30), ..config::Config::default().graph };
    let client = GraphClient::new(&served_as, &graph).map_err(|error| Failure::new(Exit::Failure, error))?;
    let served = Served {
        name: tenant.clone(),
        graph: Arc::new(client) as Arc<dyn Graph>,
        action: served_as.action,
        limits: served_as.limits.clone(),
    };
    let (settings, surroundings) = (settings(devices), Surroundings::default());
    let engine = Arc::new(Engine::new(Arc::clone(store), vec![served], settings, WorkerId::fresh(), surroundings));
    engine.start().await?;

    let stop = CancellationToken::new();
    let (ended, ()) = tokio::join!(engine.run_as_task(stop.clone()), async {
        // Twice what the simulator's own throttle allows for.
        let requests = args.action.requests(devices as usize) as u64;
        watch(store, &bar, devices, Duration::from_secs(60 + u64::from(devices) / 250 + requests * 2 / 5)).await;
        stop.cancel();
    });
    ended?;
    bar.finish_and_clear();
    Ok(())
}

async fn watch(store: &Arc<dyn Store>, bar: &ProgressBar, devices: u32, limit: Duration) {
    let started = BootInstant::now();
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    while started.elapsed() < limit {
        tick.tick().await;
        let Ok(status) = store.status().await else { continue };
        let Some(mine) = status.tenants.iter().find(|tenant| tenant.tenant == TENANT) else { continue };
        let pending = mine.ready + mine.waiting + mine.sending + mine.unknown + mine.held;
        bar.set_position(u64::from(devices).saturating_sub(u64::try_from(pending).unwrap_or(0)));
        if pending == 0 {
            return;
        }
    }
}

/// On stderr, where that is a terminal.
pub(super) fn progress(devices: u32) -> ProgressBar {
    let target =
        if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(devices.into()), target);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} devices, {elapsed}") {
        bar.set_style(style);
    }
    bar
}

/// What a tenant's section would say of the simulated Graph.
pub(super) fn simulated_tenant(simulator: &Simulator, action: Action) -> Result<config::Tenant, Failure> {
    let url = |text: &str| text.parse().map_err(|error| Failure::new(Exit::Failure, format!("{text}: {error}")));
    let defaults = config::Config::default();
    Ok(config::Tenant {
        graph_url: url(simulator.graph_url())?,
        authority_url: url(simulator.authority_url())?,
        tenant_id: simulator.tenant_id().to_string(),
        credential: config::Credential::ClientSecret {
            client_id: simulator.client_id().to_string(),
            file: simulator.client_secret_file().to_owned(),
        },
        action,
        limits: defaults.limits,
    })
}

/// Small calls, so that there is something to see.
fn settings(devices: u32) -> Settings {
    let mut settings = Settings::from(&config::Config::default());
    settings.worker.max_calls_in_flight = 2;
    settings.batch.max_devices = (devices / 10).clamp(1, 100) as usize;
    settings.retry.first_delay = Duration::from_secs(1);
    // The simulated Graph shows an action at once; the real one takes its time.
    settings.reconcile.first_after = Duration::from_secs(1);
    settings
}

async fn report(
    store: &Arc<dyn Store>,
    simulator: &Simulator,
    mine: &TenantStatus,
    url: &DatabaseUrl,
    seconds: f32,
) -> Result<String, Failure> {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(["bucket", "devices"]);
    let buckets = [
        (Bucket::Successful, mine.successful),
        (Bucket::Failed, mine.failed),
        (Bucket::NotFound, mine.not_found),
        (Bucket::NotSupported, mine.not_supported),
    ];
    for (bucket, devices) in buckets {
        table.add_row([bucket.as_str().to_owned(), devices.to_string()]);
    }
    let done: i64 = buckets.iter().map(|(_, devices)| devices).sum();

    let mut wiped: HashMap<ManagedDeviceId, u32> = HashMap::new();
    for entry in simulator.ledger() {
        *wiped.entry(entry.managed_device_id).or_default() += 1;
    }
    let twice = wiped.values().filter(|times| **times > 1).count();
    let mut examples = String::new();
    for id in ["30d0e128-de93-41dc-89ec-33d84bb662a0", "7c82a3e3-9459-44e4-94d9-b92f93bf78dd"] {
        let filter = ResultFilter { device: id.parse().ok(), ..ResultFilter::default() };
        for row in store.results(&filter, None, 10).await? {
            examples.extend(["  ", id, "  ", row.bucket.as_str(), "\n"]);
        }
    }
    let doubted = ResultFilter { all_attempts: true, bucket: Some(Bucket::Unknown), ..ResultFilter::default() };
    let doubted = store.results(&doubted, None, 1000).await?.iter().filter(|row| row.source == Source::Answer).count();
    let doubts = if doubted == 0 {
        String::new()
    } else {
        format!(
            "One answer was lost on its way: {doubted} devices were unknown until read-back showed what had become of them.\n"
        )
    };
    let client = match url.kind() {
        DatabaseKind::Sqlite { path } => format!("sqlite3 -header -column {}", path.display()),
        DatabaseKind::Postgres => format!("psql '{url}'"),
    };
    let text = format!(
        "
{table}

{done} requests ended in {seconds:.1} s. The simulated Graph's own ledger: {wiped} devices reprovisioned, {twice} of them twice.
{doubts}
The two devices of Microsoft's reference page:
{examples}
Look further:
  {client} \"SELECT bucket, count(*) FROM device_results WHERE final GROUP BY bucket\"
  {client} \"SELECT managed_device_id, attempt, bucket, source, final, detail FROM device_results WHERE source = 'read_back'\"
  {client} \"SELECT sent_at, state, http_status, device_count, error_code FROM graph_calls ORDER BY sent_at\"
  {client} \"SELECT * FROM device_history WHERE managed_device_id = '7c82a3e3-9459-44e4-94d9-b92f93bf78dd' ORDER BY at, step\"
",
        wiped = wiped.len(),
    );
    let pending = mine.ready + mine.waiting + mine.sending + mine.unknown + mine.held;
    if pending > 0 || twice > 0 {
        super::print(&text)?;
        return Err(Failure::new(
            Exit::Failure,
            format!("the demo did not end as it should: {pending} requests are still pending"),
        ));
    }
    Ok(text)
}
