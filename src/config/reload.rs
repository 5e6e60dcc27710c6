//! What a configuration that was read again changes: what is in force from now on, and what waits for a restart.

use std::collections::BTreeMap;
use std::fmt;

use super::keys::{KEYS, Key, Kind, TENANT_PREFIX, Takes, TenantField};
use super::{Config, Loaded, rules};

/// A value that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// `section.key` or `tenants.NAME.key`.
    pub key: String,
    /// What is in force, safe to print; `None` if nothing was.
    pub old: Option<String>,
    /// What was read, safe to print; `None` if it is gone.
    pub new: Option<String>,
    /// Why it needs a restart, if it does.
    pub restart: Option<&'static str>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "(none)".to_owned());
        write!(f, "{}: {} -> {}", self.key, shown(&self.old), shown(&self.new))?;
        self.restart.map_or(Ok(()), |why| write!(f, " ({why})"))
    }
}

/// What a reload would do.
#[derive(Debug, Clone)]
pub struct Reload {
    /// What is in force afterwards: what needs a restart is as it was.
    pub loaded: Loaded,
    /// Everything that is not what it was.
    pub changes: Vec<Change>,
}

/// Compares what is in force with what was read. What may not be in force beside what needs a restart is refused as a whole.
pub fn reload(running: &Loaded, read: &Loaded) -> Result<Reload, Vec<String>> {
    let changes = changes(running, read);
    let mut merged = Loaded { warnings: read.warnings.clone(), ..running.clone() };
    for change in changes.iter().filter(|change| change.restart.is_none()) {
        put(&mut merged.config, change);
        merged.effective.retain(|effective| effective.key != change.key);
        merged.effective.extend(read.effective.iter().find(|effective| effective.key == change.key).cloned());
    }
    for (name, tenant) in &mut merged.config.tenants {
        // Every bound of a tenant, its own or that of all, may change at once: they are taken as they were settled.
        if let Some(new) = read.config.tenants.get(name) {
            tenant.limits = new.limits.clone();
        }
    }
    let broken = rules::broken(&merged.config);
    if broken.is_empty() { Ok(Reload { loaded: merged, changes }) } else { Err(broken) }
}

fn changes(running: &Loaded, read: &Loaded) -> Vec<Change> {
    let values = |loaded: &Loaded| -> BTreeMap<String, String> {
        loaded.effective.iter().map(|effective| (effective.key.clone(), effective.value.clone())).collect()
    };
    let (old, new) = (values(running), values(read));
    let mut paths: Vec<&String> = old.keys().chain(new.keys().filter(|key| !old.contains_key(*key))).collect();
    paths.sort_by_key(|path| KEYS.iter().position(|key| key.is_at(path)));
    let mut changes: Vec<Change> = paths
        .into_iter()
        .filter(|path| old.get(*path) != new.get(*path))
        .map(|path| Change {
            key: path.clone(),
            old: old.get(path).cloned(),
            new: new.get(path).cloned(),
            restart: match whose(path, running, read) {
                Some(why) => Some(why),
                None => match KEYS.iter().find(|key| key.is_at(path)).map(|key| key.takes_effect) {
                    Some(Takes::OnReload) => None,
                    Some(Takes::Restart(why)) => Some(why),
                    None => Some("it is read at the start"),
                },
            },
        })
        .collect();
    // A password is not shown, and so does not show as a change.
    if running.config.database.url != read.config.database.url && !changes.iter().any(|c| c.key == "database.url") {
        let same = old.get("database.url").cloned();
        let restart = Some("its password has changed, and connections are made with the one from the start");
        changes.push(Change { key: "database.url".to_owned(), old: same.clone(), new: same, restart });
    }
    changes
}

/// Why a tenant's value needs a restart, if the tenant is not in both.
fn whose(path: &str, running: &Loaded, read: &Loaded) -> Option<&'static str> {
    let name = path.strip_prefix("tenants.")?.rsplit_once('.')?.0;
    let among = |loaded: &Loaded| loaded.config.tenants.keys().any(|tenant| tenant.to_string() == name);
    match (among(running), among(read)) {
        (false, _) => Some("the tenant is added at the next start"),
        (_, false) => Some("the tenant is served until the next start"),
        _ => None,
    }
}

fn put(config: &mut Config, change: &Change) {
    let setting = KEYS.iter().find(|key| key.path == change.key).and_then(|key| match &key.kind {
        Kind::Setting(setting) => Some(setting),
        Kind::Tenant(_) => None,
    });
    if let (Some(setting), Some(value)) = (setting, &change.new) {
        // It has been accepted a moment ago, and a value that is not shown as it was written needs a restart.
        let applied = setting.apply(config, value);
        debug_assert!(applied.is_ok(), "{} is not shown as it may be written", change.key);
    }
}

impl Key {
    /// Whether this is the key of `path`, in which a tenant has its name.
    fn is_at(&self, path: &str) -> bool {
        match &self.kind {
            Kind::Setting(_) => self.path == path,
            Kind::Tenant(_) => {
                let name = self.path.strip_prefix(TENANT_PREFIX).unwrap_or(self.path);
                path.starts_with("tenants.") && path.rsplit('.').next() == Some(name)
            }
        }
    }
}

impl Takes {
    /// For people: after `changes:`.
    pub(super) fn shown(self, kind: &Kind) -> String {
        match (self, kind) {
            (Self::OnReload, Kind::Tenant(TenantField::Own(_))) => "on reload, for a tenant that is served".to_owned(),
            (Self::OnReload, _) => "on reload (SIGHUP)".to_owned(),
            (Self::Restart(why), _) => format!("with a restart: {why}"),
        }
    }
}
