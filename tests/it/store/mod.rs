//! What the store promises, on both databases, with the databases' own clients as producers and as the eyes.

mod prepared;
mod schema;

use std::sync::Arc;

use reprovisiond::config::DatabaseUrl;
use reprovisiond::domain::id::TenantName;
use reprovisiond::store::{self, Store, StoreError};

use crate::support::{Backend, Scratch};

/// A migrated database with the tenant `default`, and a store on it.
struct Db {
    store: Arc<dyn Store>,
    // Last, so that it outlives the store's connections.
    scratch: Scratch,
}

impl Db {
    async fn new(scratch: Scratch) -> Self {
        let store = open(&scratch).await.unwrap();
        store.migrate().await.unwrap();
        store.register_tenants(&[tenant()]).await.unwrap();
        Self { store, scratch }
    }

    /// What the database's own client prints.
    async fn sql(&self, sql: &str) -> String {
        self.scratch.sqlite3_or_psql(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"))
    }
}

fn tenant() -> TenantName {
    "default".parse().unwrap()
}

async fn open(scratch: &Scratch) -> Result<Arc<dyn Store>, StoreError> {
    store::open(&DatabaseUrl::parse(&scratch.url).unwrap(), false).await
}
