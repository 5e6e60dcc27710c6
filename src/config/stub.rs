//! TEMP
#![allow(missing_docs, clippy::all, clippy::pedantic)]
use super::*;
#[derive(Debug, Clone)]
pub struct Sources {
    pub database: Option<String>,
    pub config: Option<PathBuf>,
}
pub struct Loaded {
    pub config: Config,
    pub warnings: Vec<String>,
}
impl Sources {
    pub fn from_process(config: Option<PathBuf>, database: Option<String>) -> Self {
        Self { database, config }
    }
}
pub fn load(s: &Sources) -> Result<Loaded, String> {
    let mut c = Config::default();
    c.database.url = load_database_url(s)?;
    Ok(Loaded { config: c, warnings: vec![] })
}
pub fn load_database_url(s: &Sources) -> Result<DatabaseUrl, String> {
    DatabaseUrl::parse(s.database.as_deref().unwrap_or("sqlite:reprovisiond.db"))
}
pub fn load_tenant_names(_: &Sources) -> Result<Vec<TenantName>, String> {
    Ok(vec![])
}
impl DatabaseUrl {
    pub fn parse(s: &str) -> Result<Self, String> {
        Ok(Self(s.to_owned()))
    }
}
impl std::fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
impl Action {
    pub fn as_str(self) -> &'static str {
        "bulk-reprovision-cloud-pc"
    }
}
impl Default for Config {
    fn default() -> Self {
        let s = Duration::from_secs;
        Self {
            database: Database { url: DatabaseUrl("sqlite:reprovisiond.db".into()) },
            worker: Worker {
                poll_interval: s(30),
                max_calls_in_flight: 4,
                drain_timeout: s(60),
                lease: s(60),
                send_within: s(10),
            },
            batch: Batch { max_devices: 100, linger: s(0) },
            graph: Graph { action: Action::BulkReprovisionCloudPc, call_timeout: s(60) },
            retry: Retry {
                first_delay: s(2),
                longest_delay: s(300),
                multiplier: 2.0,
                max_attempts: 3,
                failed: false,
                blocked_probe_interval: s(900),
            },
            reconcile: Reconcile {
                unknown_policy: UnknownPolicy::ReadBack,
                first_after: s(60),
                settle_after: s(900),
                give_up_after: s(7200),
                clock_margin: s(120),
            },
            limits: Limits { open_doubts: 2 },
            tenants: BTreeMap::new(),
        }
    }
}
