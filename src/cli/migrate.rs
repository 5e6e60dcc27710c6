//! `reprovisiond migrate`: makes or updates the schema and registers the configured tenants.

use clap::Args;

use super::{Exit, Failure, Global, database};
use crate::config::{self, Sources};
use crate::domain::id::TenantName;

/// Make or update the database's schema and register tenants
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  reprovisiond migrate --config /etc/reprovisiond/reprovisiond.toml
  reprovisiond migrate --database sqlite:queue.db --tenant default
  reprovisiond migrate --database 'postgres://migrator@db/reprovisiond'

Run it before the first start and after each upgrade; running it again changes nothing. Requests are accepted only for
registered tenants: those of the configuration, and those named here.")]
pub(crate) struct MigrateArgs {
    /// Register this tenant as well; may be given several times
    #[arg(long, value_name = "NAME")]
    tenant: Vec<TenantName>,
}

pub(crate) async fn run(global: &Global, args: &MigrateArgs) -> Result<(), Failure> {
    let sources = Sources::from_process(global.config.clone(), global.database.clone());
    let mistaken = |mistakes| Failure::new(Exit::Configuration, mistakes);
    let url = config::load_database_url(&sources).map_err(mistaken)?;
    let mut tenants = config::load_tenant_names(&sources).map_err(mistaken)?;
    tenants.extend(args.tenant.iter().cloned());
    // With nothing configured there is still the tenant that a request gets when it names none.
    if tenants.is_empty() {
        tenants.extend("default".parse::<TenantName>());
    }
    tenants.sort();
    tenants.dedup();

    let store = database::open_url(&url, true).await?;
    store.migrate().await.map_err(|error| database::at(&url, error))?;
    store.register_tenants(&tenants).await.map_err(|error| database::at(&url, error))?;
    store.close().await;
    let names: Vec<&str> = tenants.iter().map(TenantName::as_str).collect();
    super::print(&format!("{url} is ready; tenants: {}\n", names.join(", ")))
}
