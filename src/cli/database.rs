//! Opening the database for a command.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{Exit, Failure, Global};
use crate::config::{self, DatabaseUrl, Sources};
use crate::store::{self, Store, StoreError};

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let exit = match &error {
            StoreError::Unavailable(_) => Exit::Unavailable,
            StoreError::Unauthorised(_) => Exit::Authorisation,
            StoreError::Schema(_) => Exit::Configuration,
            StoreError::Refused(_) => Exit::Usage,
            StoreError::Corrupt { .. } | StoreError::Conflict(_) | StoreError::Other(_) => Exit::Failure,
        };
        Self::new(exit, error)
    }
}

/// The database that flags, environment and configuration name, with this program's schema in it. Needs no tenant.
pub(super) async fn open(global: &Global) -> Result<Arc<dyn Store>, Failure> {
    let url = config::load_database_url(&Sources::from_process(global.config.clone(), global.database.clone()))
        .map_err(|mistakes| Failure::new(Exit::Configuration, mistakes))?;
    open_url(&url, false).await
}

/// `url`, with this program's schema in it.
pub(super) async fn open_url(url: &DatabaseUrl, create: bool) -> Result<Arc<dyn Store>, Failure> {
    open_with(url, create, store::PATIENCE).await
}

/// `url`, with this program's schema in it, and `database.patience`.
pub(super) async fn open_with(url: &DatabaseUrl, create: bool, patience: Duration) -> Result<Arc<dyn Store>, Failure> {
    let store = store::open(url, create, patience).await.map_err(|error| at(url, error))?;
    if !create {
        store.check_schema().await.map_err(|error| at(url, error))?;
    }
    Ok(store)
}

/// A failure that says which database.
pub(super) fn at(url: &DatabaseUrl, error: StoreError) -> Failure {
    let mut failure = Failure::from(error);
    failure.message = format!("{url}: {}", failure.message);
    failure
}

/// Removes a SQLite file and what SQLite keeps beside it.
pub(super) fn remove_file(path: &Path) -> Result<(), Failure> {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let mut file = path.as_os_str().to_owned();
        file.push(suffix);
        match std::fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Failure::new(Exit::Failure, format!("{}: {error}", Path::new(&file).display())));
            }
            _ => {}
        }
    }
    Ok(())
}
