//! The directory with the app's credentials and the authority's certificate: readable by its owner only, gone with the
//! simulator.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::credentials::Credentials;

#[derive(Debug)]
pub(super) struct Scratch {
    directory: PathBuf,
    pub(super) secret: PathBuf,
    pub(super) certificate: PathBuf,
    pub(super) federated_token: PathBuf,
    pub(super) ca: Option<PathBuf>,
}

impl Scratch {
    pub(super) fn write(credentials: &Credentials, ca_pem: Option<&str>) -> Result<Self, (PathBuf, io::Error)> {
        let directory = std::env::temp_dir().join(format!("reprovisiond-simulator-{}", Uuid::new_v4().simple()));
        // Not recursive: a directory that is already there was made by somebody else, and is an error.
        DirBuilder::new().mode(0o700).create(&directory).map_err(|error| (directory.clone(), error))?;
        let scratch = Self {
            secret: directory.join("client-secret"),
            certificate: directory.join("certificate.pem"),
            federated_token: directory.join("federated-token"),
            ca: ca_pem.map(|_| directory.join("ca.pem")),
            directory,
        };
        scratch.put(credentials)?;
        if let (Some(path), Some(pem)) = (&scratch.ca, ca_pem) {
            replace(path, pem)?;
        }
        Ok(scratch)
    }

    /// Puts these credentials in the place of those before.
    pub(super) fn put(&self, credentials: &Credentials) -> Result<(), (PathBuf, io::Error)> {
        replace(&self.secret, &credentials.secret)?;
        replace(&self.certificate, &credentials.certificate.pem)?;
        replace(&self.federated_token, &credentials.federated_token)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// In one step, as Kubernetes changes a mounted file: nobody reads half of it.
fn replace(path: &Path, content: &str) -> Result<(), (PathBuf, io::Error)> {
    let new = path.with_extension("new");
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new);
    written
        .and_then(|mut file| file.write_all(content.as_bytes()))
        .and_then(|()| std::fs::rename(&new, path))
        .map_err(|error| (path.to_owned(), error))
}
