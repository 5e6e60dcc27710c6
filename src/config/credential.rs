//! What a tenant signs in with: the kind, whose ID, the file; and that the keys that are given belong to the kind.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use super::diagnose::{About, Complaint, Origin};
use super::draft::{Draft, Slot, TenantDraft};
use super::secret_file::{self, FileKind};
use super::setting::not_among;
use super::sources::WEBHOOK;
use super::tenant;
use crate::domain::id::TenantName;

/// How the daemon proves to Entra ID who it is. Secrets are only ever files, read anew for each token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// The app registration's secret.
    ClientSecret {
        /// Application (client) ID.
        client_id: String,
        /// The file that holds the secret.
        file: PathBuf,
    },
    /// A certificate that is registered with the app.
    Certificate {
        /// Application (client) ID.
        client_id: String,
        /// The PEM file that holds the certificate and its private key.
        file: PathBuf,
    },
    /// The identity of the Azure resource that this runs on.
    ManagedIdentity {
        /// Of a user-assigned identity; `None` is the system-assigned one.
        client_id: Option<String>,
    },
    /// The token of another identity provider, such as a Kubernetes cluster, that the app trusts.
    WorkloadIdentity {
        /// Application (client) ID.
        client_id: String,
        /// The file that holds the other provider's token.
        file: PathBuf,
    },
}

/// The kinds, before it is known whether what they need is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    ClientSecret,
    Certificate,
    ManagedIdentity,
    WorkloadIdentity,
}

impl Kind {
    const ALL: [Self; 4] = [Self::ClientSecret, Self::Certificate, Self::ManagedIdentity, Self::WorkloadIdentity];

    const fn as_str(self) -> &'static str {
        match self {
            Self::ClientSecret => "client-secret",
            Self::Certificate => "certificate",
            Self::ManagedIdentity => "managed-identity",
            Self::WorkloadIdentity => "workload-identity",
        }
    }

    const fn file(self) -> Option<&'static FileKind> {
        match self {
            Self::ClientSecret => Some(&secret_file::CLIENT_SECRET),
            Self::Certificate => Some(&secret_file::CERTIFICATE),
            Self::ManagedIdentity => None,
            Self::WorkloadIdentity => Some(&secret_file::FEDERATED_TOKEN),
        }
    }
}

/// The words that choose a kind.
pub(super) fn words() -> impl Iterator<Item = &'static str> + Clone {
    Kind::ALL.into_iter().map(Kind::as_str)
}

pub(super) fn kind(text: &str) -> Result<Kind, Complaint> {
    Kind::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| not_among(text, words()))
}

type Read = fn(&str) -> Result<String, Complaint>;

/// What Azure's workload identity webhook puts into a pod is taken where no layer gives it.
pub(super) fn take_from_webhook(draft: &mut Draft, env: &BTreeMap<String, OsString>, tenant: &mut TenantDraft) {
    if !matches!(tenant.credential, Slot::Given(Kind::WorkloadIdentity, _)) {
        return;
    }
    let slots: [(&mut Slot<String>, Read); 3] = [
        (&mut tenant.tenant_id, tenant::directory),
        (&mut tenant.client_id, tenant::application),
        (&mut tenant.federated_token_file, tenant::secret_path),
    ];
    for (variable, (slot, read)) in WEBHOOK.into_iter().zip(slots) {
        let given = env.get(variable).and_then(|value| value.to_str()).filter(|value| !value.is_empty());
        let (Slot::Absent, Some(text)) = (&*slot, given) else { continue };
        let origin = Origin::Variable(variable.to_owned());
        *slot = match read(text) {
            Ok(value) => Slot::Given(value, origin),
            Err(Complaint { rule, remedy }) => {
                draft.mistake(origin, About::Key("tenants"), rule, remedy);
                Slot::Faulty
            }
        };
    }
}

/// What is in force of a credential, in the order of the keys: key, value, origin.
pub(super) type Shown = Vec<(&'static str, String, Origin)>;

/// The credential, or the mistakes that leave it unknown.
pub(super) fn settle(
    draft: &mut Draft,
    env: &BTreeMap<String, OsString>,
    name: &TenantName,
    tenant: TenantDraft,
    missing: &impl Fn(&mut Draft, &str, &str),
) -> Option<(Credential, Shown)> {
    let (kind, chosen_at) = match tenant.credential {
        Slot::Given(kind, origin) => (kind, origin),
        Slot::Absent => (Kind::ClientSecret, Origin::Default),
        Slot::Faulty => return None,
    };
    let files = [
        (Kind::ClientSecret, tenant.client_secret_file),
        (Kind::Certificate, tenant.certificate_file),
        (Kind::WorkloadIdentity, tenant.federated_token_file),
    ];
    let (mut own, mut strangers) = (Slot::Absent, false);
    for (of, slot) in files {
        match (of == kind, slot) {
            (true, slot) => own = slot,
            (false, Slot::Given(_, origin)) => {
                strangers = true;
                let key = of.file().map_or("", |file| file.key);
                let what = format!("tenants.{name}.{key}: not used with credential = \"{}\"", kind.as_str());
                let remedy = format!("remove {key}, or write credential = \"{}\"", of.as_str());
                draft.mistake(origin, About::Key("tenants"), what, remedy);
            }
            (false, Slot::Absent | Slot::Faulty) => {}
        }
    }
    let faulty = matches!(tenant.client_id, Slot::Faulty);
    let client_id = match tenant.client_id {
        Slot::Given(value, origin) => Some((value, origin)),
        Slot::Faulty => None,
        Slot::Absent if kind == Kind::ManagedIdentity => None,
        Slot::Absent => {
            missing(draft, "client_id", "APPLICATION-ID");
            None
        }
    };
    let file = match (kind.file(), own) {
        (Some(file), Slot::Given(written, origin)) => {
            secret_file::find(draft, env, name, file, &written, &origin).map(|path| (path, file.key, origin))
        }
        // Whoever gave another kind's file meant that kind.
        (Some(file), Slot::Absent) if !(strangers && chosen_at == Origin::Default) => {
            missing(draft, file.key, "PATH");
            None
        }
        _ => None,
    };
    if strangers || faulty {
        return None;
    }
    let mut shown = Shown::new();
    shown.extend(client_id.iter().map(|(id, origin)| ("client_id", id.clone(), origin.clone())));
    shown.push(("credential", kind.as_str().to_owned(), chosen_at));
    shown.extend(file.iter().map(|(path, key, origin)| (*key, path.to_string_lossy().into_owned(), origin.clone())));
    let client_id = client_id.map(|(id, _)| id);
    let file = file.map(|(path, ..)| path);
    let credential = match kind {
        Kind::ClientSecret => Credential::ClientSecret { client_id: client_id?, file: file? },
        Kind::Certificate => Credential::Certificate { client_id: client_id?, file: file? },
        Kind::ManagedIdentity => Credential::ManagedIdentity { client_id },
        Kind::WorkloadIdentity => Credential::WorkloadIdentity { client_id: client_id?, file: file? },
    };
    Some((credential, shown))
}
