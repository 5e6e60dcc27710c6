//! The directory with the secret and the authority's certificate: readable by its owner only, gone with the simulator.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use uuid::Uuid;

#[derive(Debug)]
pub(super) struct Scratch {
    directory: PathBuf,
    pub(super) secret: PathBuf,
    pub(super) ca: Option<PathBuf>,
}

impl Scratch {
    pub(super) fn write(secret: &str, ca_pem: Option<&str>) -> Result<Self, (PathBuf, io::Error)> {
        let directory = std::env::temp_dir().join(format!("reprovisiond-simulator-{}", Uuid::new_v4().simple()));
        // Not recursive: a directory that is already there was made by somebody else, and is an error.
        DirBuilder::new().mode(0o700).create(&directory).map_err(|error| (directory.clone(), error))?;
        let ca = ca_pem.map(|_| directory.join("ca.pem"));
        let scratch = Self { secret: directory.join("client-secret"), ca, directory };
        private_file(&scratch.secret, secret).map_err(|error| (scratch.secret.clone(), error))?;
        if let (Some(path), Some(pem)) = (&scratch.ca, ca_pem) {
            private_file(path, pem).map_err(|error| (path.clone(), error))?;
        }
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn private_file(path: &Path, content: &str) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(content.as_bytes())
}
