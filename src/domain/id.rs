//! Identifiers, parsed once at the edge and typed from there on.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A row of `reprovision_requests`: one device that somebody asked to reprovision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(pub i64);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An Intune managed device ID: a GUID, canonical (lower case, hyphens, no braces) wherever it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ManagedDeviceId(Uuid);

/// Why a text is no managed device ID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotADeviceId {
    /// Not the form of a GUID.
    #[error(
        "not an Intune managed device ID: expected a GUID such as 30d0e128-de93-41dc-89ec-33d84bb662a0, with or without braces"
    )]
    NotAGuid,
    /// The GUID of zeros stands for "none" and is no device.
    #[error("the GUID of zeros is no device: give the managed device ID that Intune shows")]
    Nil,
}

impl ManagedDeviceId {
    /// The GUID itself.
    pub fn as_uuid(self) -> Uuid {
        self.0
    }
}

impl TryFrom<Uuid> for ManagedDeviceId {
    type Error = NotADeviceId;

    fn try_from(uuid: Uuid) -> Result<Self, NotADeviceId> {
        if uuid.is_nil() { Err(NotADeviceId::Nil) } else { Ok(Self(uuid)) }
    }
}

impl FromStr for ManagedDeviceId {
    type Err = NotADeviceId;

    /// The hyphenated form in any case, with or without braces; the same texts that the databases' triggers take.
    fn from_str(text: &str) -> Result<Self, NotADeviceId> {
        let bare = match text.strip_prefix('{') {
            Some(rest) => rest.strip_suffix('}').ok_or(NotADeviceId::NotAGuid)?,
            None => text,
        };
        if bare.len() != 36 {
            return Err(NotADeviceId::NotAGuid);
        }
        Uuid::try_parse(bare).map_err(|_| NotADeviceId::NotAGuid)?.try_into()
    }
}

impl fmt::Display for ManagedDeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

/// A Cloud PC's own ID. It stays when the Cloud PC is reprovisioned, where its managed device ID need not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CloudPcId(pub Uuid);

impl fmt::Display for CloudPcId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

/// One POST to Graph. Sent as `client-request-id`, so that Microsoft's support can find the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CallId(pub Uuid);

impl CallId {
    /// A fresh one: version 7, so that calls sort by time. The only randomness the domain hands out, and only on demand.
    #[allow(clippy::disallowed_methods, reason = "this is the door that identifiers come through")]
    pub fn fresh() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

/// One life of one daemon process; a restart is a new worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkerId(pub Uuid);

impl WorkerId {
    /// A fresh one, for a process that starts.
    #[allow(clippy::disallowed_methods, reason = "the one door through which worker ids come")]
    pub fn fresh() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

/// The name of a tenant: the key of a `[tenants.NAME]` section and the `tenant` column.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct TenantName(String);

/// A text that is no tenant name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a tenant name: use 1 to 64 of a-z, 0-9, '-' and '_', beginning with a letter or digit")]
pub struct NotATenantName;

impl TenantName {
    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TenantName {
    type Err = NotATenantName;

    fn from_str(text: &str) -> Result<Self, NotATenantName> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        let first_ok = text.chars().next().is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        if first_ok && text.len() <= 64 && text.chars().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NotATenantName)
        }
    }
}

impl fmt::Display for TenantName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_id_is_a_guid_in_any_case_with_or_without_braces() {
        let canonical = "30d0e128-de93-41dc-89ec-33d84bb662a0";
        for text in [canonical, "30D0E128-DE93-41dc-89EC-33D84BB662A0", "{30d0e128-de93-41dc-89ec-33d84bb662a0}"] {
            assert_eq!(text.parse::<ManagedDeviceId>().map(|d| d.to_string()), Ok(canonical.to_owned()));
        }
        for text in [
            "",
            "{30d0e128-de93-41dc-89ec-33d84bb662a0",
            "30d0e128de9341dc89ec33d84bb662a0",
            " 30d0e128-de93-41dc-89ec-33d84bb662a0",
        ] {
            assert_eq!(text.parse::<ManagedDeviceId>(), Err(NotADeviceId::NotAGuid), "{text:?}");
        }
        assert_eq!("00000000-0000-0000-0000-000000000000".parse::<ManagedDeviceId>(), Err(NotADeviceId::Nil));
    }

    #[test]
    fn a_tenant_name_fits_a_toml_key_and_an_environment_variable() {
        assert!("default".parse::<TenantName>().is_ok());
        for text in ["", "-a", "Contoso", "a.b", "a b", &"x".repeat(65)] {
            assert_eq!(text.parse::<TenantName>(), Err(NotATenantName), "{text:?}");
        }
    }
}
