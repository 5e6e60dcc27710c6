//! The layer of the environment: `REPROVISIOND_SECTION_KEY` and `REPROVISIOND_TENANTS_NAME_KEY`.
//!
//! `NAME` is the tenant's name in upper case with '-' as '_'. It means the tenant of the file that is written so; if
//! there is none it declares a tenant, in lower case, with every '_' kept.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use super::diagnose::{About, Origin, SECRETS_ONLY_FROM_FILES, USE_A_SECRET_FILE, names_a_secret, nearest};
use super::draft::{Draft, TenantDraft, tenant_path};
use super::keys::{KEYS, Key, Kind};
use super::sources::{NOT_KEYS, PREFIX};
use crate::domain::id::TenantName;
use crate::domain::printable::printable;

/// Lays the variables over the layers below.
pub(super) fn lay(draft: &mut Draft, env: &BTreeMap<String, OsString>) {
    for (name, value) in env.iter().filter(|(name, _)| name.starts_with(PREFIX) && !NOT_KEYS.contains(&name.as_str())) {
        let known = KEYS.iter().find(|key| key.section().is_some() && key.variable() == *name);
        match known.map(|key| (key, &key.kind)) {
            Some((key, Kind::Setting(setting))) => {
                if let Some(text) = text(draft, name, value, key) {
                    draft.lay(key, setting, text, text, Origin::Variable(name.clone()));
                } else {
                    draft.faulty.insert(key.path);
                }
            }
            _ => match tenant_and_key(name) {
                Some((tenant, key)) => tenant_value(draft, name, value, tenant, key),
                None => unknown(draft, name),
            },
        }
    }
}

/// The value, unless it is empty or not UTF-8, which is reported.
fn text<'v>(draft: &mut Draft, name: &str, value: &'v OsStr, key: &'static Key) -> Option<&'v str> {
    let (what, remedy) = match value.to_str() {
        Some("") => ("is set but empty", "give it a value, or unset it for the layer below"),
        Some(text) => return Some(text),
        None => ("is not UTF-8", "give it a value in UTF-8"),
    };
    draft.mistake(Origin::Variable(name.to_owned()), About::Key(key.path), what, remedy);
    None
}

/// `CONTOSO` and the key `cloud`, of `REPROVISIOND_TENANTS_CONTOSO_CLOUD`.
fn tenant_and_key(variable: &str) -> Option<(&str, &'static Key)> {
    let rest = variable.strip_prefix(PREFIX)?.strip_prefix("TENANTS_")?;
    KEYS.iter().filter(|key| key.section().is_none()).find_map(|key| {
        let tenant = rest.strip_suffix(&key.name().to_uppercase())?.strip_suffix('_')?;
        (!tenant.is_empty()).then_some((tenant, key))
    })
}

fn tenant_value(draft: &mut Draft, variable: &str, value: &OsStr, written: &str, key: &'static Key) {
    let origin = Origin::Variable(variable.to_owned());
    let Kind::Tenant(field) = &key.kind else { return };
    let Some(text) = text(draft, variable, value, key) else { return };
    let named: Vec<TenantName> = draft.tenants.keys().filter(|name| as_variable(name) == written).cloned().collect();
    let name = match named.as_slice() {
        [name] => name.clone(),
        [] => match written.to_lowercase().parse::<TenantName>() {
            Ok(name) if as_variable(&name) == written => name,
            _ => {
                let what = format!("`{}` is no tenant's name in upper case", printable(written, 60));
                let remedy = "write REPROVISIOND_TENANTS_NAME_KEY, NAME from A-Z, 0-9 and '_'";
                return draft.mistake(origin, About::Key(key.path), what, remedy);
            }
        },
        several => {
            let each: Vec<String> = several.iter().map(ToString::to_string).collect();
            let what = format!("can mean each of the tenants {}", each.join(", "));
            let remedy = "set this key in the file, or rename a tenant";
            return draft.mistake(origin, About::Key(key.path), what, remedy);
        }
    };
    let tenant = draft.tenants.entry(name.clone()).or_insert_with(|| TenantDraft::declared_at(origin.clone()));
    if let Err(complaint) = tenant.lay(field, text, &origin) {
        draft.wrong_value(origin, key, &tenant_path(name.as_str(), key), Some(text), complaint);
    }
}

/// A tenant's name as it stands in a variable.
fn as_variable(name: &TenantName) -> String {
    name.as_str().to_uppercase().replace('-', "_")
}

fn unknown(draft: &mut Draft, name: &str) {
    let tenant_names: Vec<String> = draft.tenants.keys().map(as_variable).collect();
    let candidates: Vec<(String, &'static Key)> = KEYS
        .iter()
        .flat_map(|key| match key.section() {
            Some(_) => vec![(key.variable(), key)],
            None => tenant_names.iter().map(|tenant| (key.variable().replacen("NAME", tenant, 1), key)).collect(),
        })
        .collect();
    let suffixes: Vec<&str> = candidates.iter().filter_map(|(candidate, _)| candidate.strip_prefix(PREFIX)).collect();
    // The common prefix would make everything look near.
    let near = nearest(name.strip_prefix(PREFIX).unwrap_or(name), suffixes);
    let (what, remedy, about) = if let Some(near) = near {
        let key = candidates.iter().find(|(candidate, _)| candidate.strip_prefix(PREFIX) == Some(near));
        let about = key.map_or(About::Other, |(_, key)| About::Key(key.path));
        (format!("unknown variable; did you mean `{PREFIX}{near}`?"), "", about)
    } else if names_a_secret(name) {
        (format!("unknown variable: {SECRETS_ONLY_FROM_FILES}"), USE_A_SECRET_FILE, About::Other)
    } else {
        let remedy = "unset it; the names are REPROVISIOND_SECTION_KEY and REPROVISIOND_TENANTS_NAME_KEY";
        ("unknown variable".to_owned(), remedy, About::Other)
    };
    draft.mistake(Origin::Variable(name.to_owned()), about, what, remedy);
}
