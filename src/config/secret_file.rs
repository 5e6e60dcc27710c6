//! The file of a tenant's secret, certificate or token: where it is, and whether it holds something that nobody else can
//! read.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::certificate::ClientCertificate;
use super::diagnose::{About, Origin, looks_like_a_secret};
use super::draft::Draft;
use super::sources::CREDENTIALS_DIRECTORY;
use crate::domain::id::TenantName;
use crate::domain::printable::printable;

/// What is asked of one of the files.
pub(super) struct FileKind {
    /// The key that names it, without the tenant.
    pub(super) key: &'static str,
    what: &'static str,
    longest_bytes: u64,
    remedy: &'static str,
    /// Whether the content will do.
    check: fn(&[u8]) -> Result<(), String>,
}

/// It has some 40 characters; what is longer than this is another file.
pub(super) const CLIENT_SECRET: FileKind = FileKind {
    key: "client_secret_file",
    what: "client secret",
    longest_bytes: 16 * 1024,
    remedy: "write the secret to that file, readable by the daemon's user alone",
    check: |_| Ok(()),
};

/// A key and a chain of certificates have some 10,000 bytes.
pub(super) const CERTIFICATE: FileKind = FileKind {
    key: "certificate_file",
    what: "certificate with its key",
    longest_bytes: 64 * 1024,
    remedy: "write certificate and private key to that file, in PEM, readable by the daemon's user alone",
    check: |content| ClientCertificate::from_pem(content).map(|_| ()).map_err(|why| why.to_string()),
};

/// A JWT of some 1,000 bytes.
pub(super) const FEDERATED_TOKEN: FileKind = FileKind {
    key: "federated_token_file",
    what: "token",
    longest_bytes: 16 * 1024,
    remedy: "have the platform write the workload's token to that file, such as by a projected volume of Kubernetes",
    check: |_| Ok(()),
};

/// The file's path, once it is known to hold something that can be read.
pub(super) fn find(
    draft: &mut Draft,
    env: &BTreeMap<String, OsString>,
    name: &TenantName,
    kind: &FileKind,
    written: &str,
    origin: &Origin,
) -> Option<PathBuf> {
    let key = format!("tenants.{name}.{}", kind.key);
    let in_credentials = ["$CREDENTIALS_DIRECTORY/", "${CREDENTIALS_DIRECTORY}/"];
    let path = match in_credentials.iter().find_map(|prefix| written.strip_prefix(prefix)) {
        Some(rest) => {
            let Some(directory) = env.get(CREDENTIALS_DIRECTORY).filter(|value| !value.is_empty()) else {
                let what = format!("{key}: $CREDENTIALS_DIRECTORY is not set");
                let remedy = "start the daemon by a systemd unit with LoadCredential=, or write a path";
                draft.mistake(origin.clone(), About::Key("tenants"), what, remedy);
                return None;
            };
            Path::new(directory).join(rest)
        }
        None if written.starts_with('$') => {
            let what = format!("{key}: only a leading $CREDENTIALS_DIRECTORY/ is replaced, no other variable");
            draft.mistake(origin.clone(), About::Key("tenants"), what, "write the path itself");
            return None;
        }
        None => draft.directory.join(written),
    };
    // Somebody may have pasted the secret itself here.
    let shown = if looks_like_a_secret(written) {
        "(path not shown: it could be the secret itself)".to_owned()
    } else {
        printable(&path.to_string_lossy(), 4096).to_string()
    };
    match look_into(&path, kind) {
        Ok(others_may_read) => {
            if others_may_read {
                let what = format!("{key}: {shown} can be read or changed by every user of this host");
                draft.warn(origin.clone(), what, "take that away: chmod o-rwx FILE");
            }
            Some(path)
        }
        Err(why) => {
            let what = format!("{key}: {shown}: {why}");
            draft.mistake(origin.clone(), About::Key("tenants"), what, kind.remedy);
            None
        }
    }
}

/// Whether every user may get at the file; or why it is no secret's file.
fn look_into(path: &Path, kind: &FileKind) -> Result<bool, String> {
    let unreadable = |why: std::io::Error| match why.kind() {
        std::io::ErrorKind::NotFound => "does not exist".to_owned(),
        std::io::ErrorKind::PermissionDenied => "cannot be read: permission denied".to_owned(),
        _ => format!("cannot be read: {why}"),
    };
    // Before it is opened: opening a pipe would wait for its writer.
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err("is not a file".to_owned());
    }
    let longest = kind.longest_bytes;
    if metadata.len() > longest {
        return Err(format!("is longer than {longest} bytes, which no {} is", kind.what));
    }
    let mut content = Vec::new();
    File::open(path).and_then(|file| file.take(longest).read_to_end(&mut content)).map_err(unreadable)?;
    if content.iter().all(u8::is_ascii_whitespace) {
        return Err("is empty".to_owned());
    }
    (kind.check)(&content)?;
    Ok(open_to_others(&metadata))
}

#[cfg(unix)]
pub(super) fn open_to_others(metadata: &std::fs::Metadata) -> bool {
    std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o007 != 0
}

#[cfg(not(unix))]
pub(super) fn open_to_others(_: &std::fs::Metadata) -> bool {
    false
}
