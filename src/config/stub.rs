//! TEMP: what the `conf` branch brings. Dropped when that is merged.
#![allow(missing_docs, clippy::unused_self, clippy::needless_pass_by_value)]

use std::fmt;
use std::path::PathBuf;

use super::{Config, DatabaseUrl};
use crate::domain::id::TenantName;

pub struct Sources {
    database: Option<String>,
}

pub type Mistakes = String;

pub struct Loaded {
    pub config: Config,
    pub warnings: Vec<String>,
}

impl Sources {
    pub fn from_process(_config: Option<PathBuf>, database: Option<String>) -> Self {
        Self { database }
    }
}

pub fn load(_: &Sources) -> Result<Loaded, Mistakes> {
    Err("no configuration yet".to_owned())
}

pub fn load_database_url(sources: &Sources) -> Result<DatabaseUrl, Mistakes> {
    sources.database.clone().map(DatabaseUrl).ok_or_else(|| "database.url is missing: use --database".to_owned())
}

pub fn load_tenant_names(_: &Sources) -> Result<Vec<TenantName>, Mistakes> {
    Ok(Vec::new())
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DATABASE")
    }
}
