//! `[tenants.NAME]`: its clouds and URLs, its identifiers, and the tenant as a whole.

use std::collections::BTreeMap;
use std::ffi::OsString;

use url::{Host, Url};
use uuid::Uuid;

use super::diagnose::{About, Complaint, Origin, nearest};
use super::draft::{Draft, Slot, TenantDraft};
use super::keys::setting;
use super::load::Effective;
use super::setting::not_among;
use super::{Config, Tenant, credential};
use crate::domain::action::Action;
use crate::domain::id::TenantName;
use crate::domain::printable::printable;

/// A cloud's Graph and its Entra ID authority; `None` where the configuration gives them.
pub(super) type Cloud = (&'static str, Option<(&'static str, &'static str)>);

/// The national deployments as Microsoft's page of that name lists them.
pub(super) const CLOUDS: [Cloud; 5] = [
    ("global", Some(("https://graph.microsoft.com", "https://login.microsoftonline.com"))),
    ("us-gov-l4", Some(("https://graph.microsoft.us", "https://login.microsoftonline.us"))),
    ("us-gov-l5", Some(("https://dod-graph.microsoft.us", "https://login.microsoftonline.us"))),
    ("china", Some(("https://microsoftgraph.chinacloudapi.cn", "https://login.chinacloudapi.cn"))),
    ("custom", None),
];

/// What Microsoft's reference page of an action says where it is not available in a cloud; by the words of `tenants.NAME.cloud`
/// and `graph.action`.
///
/// Sources, each page's table of national cloud deployments: "managedDevice: bulkReprovisionCloudPc" (beta),
/// "cloudPcBulkReprovision" (beta), "cloudPC: reprovision" (v1.0).
pub(super) fn unavailable(cloud: &str, action: &str) -> Option<&'static str> {
    match (action, cloud) {
        ("bulk-reprovision-cloud-pc", "china")
        | ("cloud-pc-bulk-action" | "cloud-pc-reprovision", "us-gov-l5" | "china") => {
            Some("Microsoft's reference page marks the action as not available in this cloud")
        }
        _ => None,
    }
}

/// What a first tenant looks like.
const MINIMAL: &str = "add one to the configuration file:
  [tenants.contoso]
  tenant_id = \"DIRECTORY-ID-OR-DOMAIN\"
  client_id = \"APPLICATION-ID\"
  client_secret_file = \"contoso.secret\"";

pub(super) fn cloud(text: &str) -> Result<Cloud, Complaint> {
    CLOUDS
        .into_iter()
        .find(|(word, _)| *word == text)
        .ok_or_else(|| not_among(text, CLOUDS.iter().map(|(word, _)| *word)))
}

/// A base URL that ends in '/', so that a path can be joined to it.
pub(super) fn base_url(text: &str) -> Result<Url, Complaint> {
    let refuse = |rule: &str, remedy: &str| Err(Complaint::new(rule, remedy));
    let example = "write it as https://HOST, or https://HOST/PATH";
    let Ok(mut url) = Url::parse(text) else { return refuse("not a URL", example) };
    let local = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    };
    match url.scheme() {
        "https" => {}
        "http" if local => {}
        "http" => {
            return refuse(
                "tokens and wipes must not travel unencrypted",
                "write https://; plain http is for 127.0.0.0/8, ::1 and localhost only",
            );
        }
        _ => return refuse("not an https URL", example),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return refuse("must hold no user name or password", "remove what stands before the '@'");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return refuse("must hold no query and no fragment", "remove what follows the '?' or '#'");
    }
    let path = url.path().trim_end_matches('/').to_owned();
    if path.ends_with("/v1.0") || path.ends_with("/beta") {
        return refuse("must hold no Graph version", "remove the version; each call adds its own");
    }
    url.set_path(&format!("{path}/"));
    Ok(url)
}

pub(super) fn directory(text: &str) -> Result<String, Complaint> {
    if let Some(id) = guid(text) {
        return id;
    }
    if ["common", "organizations", "consumers"].contains(&text.to_ascii_lowercase().as_str()) {
        return Err(Complaint::new(
            "stands for many directories; a daemon signs in to one",
            "write the directory (tenant) ID that Entra ID shows, or a domain verified in it",
        ));
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let last_is_a_name = text.rsplit('.').next().is_some_and(|last| last.bytes().any(|b| b.is_ascii_alphabetic()));
    if text.len() <= 253 && text.contains('.') && text.split('.').all(label) && last_is_a_name {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(Complaint::new(
            "neither a GUID nor a domain",
            "write the directory (tenant) ID that Entra ID shows, or a domain verified in it",
        ))
    }
}

pub(super) fn application(text: &str) -> Result<String, Complaint> {
    guid(text).unwrap_or_else(|| {
        Err(Complaint::new("not a GUID", "write the application (client) ID that the app registration shows"))
    })
}

/// `None` if it has not the form of a GUID.
fn guid(text: &str) -> Option<Result<String, Complaint>> {
    let id = Uuid::try_parse(text).ok().filter(|_| text.len() == 36)?;
    Some(if id.is_nil() {
        Err(Complaint::new("the GUID of zeros stands for none", "write the ID that Entra ID shows"))
    } else {
        Ok(id.as_hyphenated().to_string())
    })
}

pub(super) fn secret_path(text: &str) -> Result<String, Complaint> {
    if text.is_empty() || text.contains('\0') {
        return Err(Complaint::new("not a path", "write the path of the file"));
    }
    Ok(text.to_owned())
}

/// Makes the tenants of the draft whole, or says what is missing; returns what is in force, for the reader.
pub(super) fn settle(draft: &mut Draft, env: &BTreeMap<String, OsString>, file: Origin) -> Vec<Effective> {
    let drafts = std::mem::take(&mut draft.tenants);
    let concerns_tenants = |about| matches!(about, About::Key(path) if path.starts_with("tenants"));
    let already_reported = draft.mistakes.iter().any(|m| m.about == About::Layer || concerns_tenants(m.about));
    if drafts.is_empty() && !already_reported {
        draft.mistake(file, About::Key("tenants"), "no tenant is configured", MINIMAL);
    }
    let names: Vec<String> = drafts.keys().map(ToString::to_string).collect();
    let mut effective = Vec::new();
    for (name, tenant) in drafts {
        complete(draft, env, &names, name, tenant, &mut effective);
    }
    warn_of_twins(draft);
    effective
}

fn complete(
    draft: &mut Draft,
    env: &BTreeMap<String, OsString>,
    names: &[String],
    name: TenantName,
    mut tenant: TenantDraft,
    effective: &mut Vec<Effective>,
) {
    let declared = tenant.declared.clone();
    credential::take_from_webhook(draft, env, &mut tenant);
    // A variable declares a tenant that the file does not have; a misspelt name looks just like that.
    let meant = match &declared {
        Origin::Variable(_) => {
            let others = names.iter().map(String::as_str).filter(|other| *other != name.as_str());
            nearest(name.as_str(), others).map(|near| format!("; or did you mean the tenant {near}?"))
        }
        _ => None,
    };
    let missing = |draft: &mut Draft, key: &str, example: &str| {
        let what = format!("tenants.{name} has no {key}");
        let remedy = format!("add {key} = \"{example}\"{}", meant.as_deref().unwrap_or_default());
        draft.mistake(declared.clone(), About::Key("tenants"), what, remedy);
    };
    let urls = urls(draft, &name, &tenant, &missing);
    let tenant_id = match std::mem::replace(&mut tenant.tenant_id, Slot::Absent) {
        Slot::Given(value, origin) => Some((value, origin)),
        Slot::Faulty => None,
        Slot::Absent => {
            missing(draft, "tenant_id", "DIRECTORY-ID-OR-DOMAIN");
            None
        }
    };
    let own_values = std::mem::take(&mut tenant.own);
    let credential = credential::settle(draft, env, &name, tenant, &missing);
    let (Some((word, graph_url, authority_url)), Some(tenant_id), Some((credential, shown))) =
        (urls, tenant_id, credential)
    else {
        return;
    };
    let mut show = |key: &str, value: &str, origin: &Origin| {
        let value = printable(value, 4096).to_string();
        effective.push(Effective { key: format!("tenants.{name}.{key}"), value, origin: origin.clone() });
    };
    show("cloud", word.0, &word.1);
    show("graph_url", graph_url.0.as_str(), &graph_url.1);
    show("authority_url", authority_url.0.as_str(), &authority_url.1);
    show("tenant_id", &tenant_id.0, &tenant_id.1);
    for (key, value, origin) in &shown {
        show(key, value, origin);
    }
    let own = with_own(&draft.config, own_values, show);
    let tenant = Tenant {
        graph_url: graph_url.0,
        authority_url: authority_url.0,
        tenant_id: tenant_id.0,
        credential,
        action: own.graph.action,
        limits: own.limits,
    };
    warn_of_unavailable_action(draft, &name, &word, tenant.action);
    draft.config.tenants.insert(name, tenant);
}

/// The configuration as it is for a tenant with these values of its own, each of which is shown.
pub(super) fn with_own(
    config: &Config,
    own_values: BTreeMap<&'static str, Slot<String>>,
    mut show: impl FnMut(&str, &str, &Origin),
) -> Config {
    let mut own = config.clone();
    for (path, slot) in own_values {
        let Slot::Given(text, origin) = slot else { continue };
        // It was tried when it was laid, and a mistake was reported then.
        let key = path.rsplit('.').next().unwrap_or(path);
        if let Some(Ok(value)) = setting(path).map(|setting| setting.apply(&mut own, &text)) {
            show(key, &value, &origin);
        }
    }
    own
}

fn warn_of_unavailable_action(
    draft: &mut Draft,
    name: &TenantName,
    (cloud, origin): &Sited<&'static str>,
    action: Action,
) {
    let action = action.as_str();
    if let Some(why) = unavailable(cloud, action) {
        let what = format!("tenants.{name}.cloud = \"{cloud}\" and the action is {action}: {why}");
        let remedy = "requests stay queued if Graph refuses it there; see whether another is available there (graph.action or tenants.NAME.action)";
        draft.warn(origin.clone(), what, remedy);
    }
}

type Sited<T> = (T, Origin);

/// The cloud's word and its two URLs, or the mistakes that leave them unknown.
fn urls(
    draft: &mut Draft,
    name: &TenantName,
    tenant: &TenantDraft,
    missing: &impl Fn(&mut Draft, &str, &str),
) -> Option<(Sited<&'static str>, Sited<Url>, Sited<Url>)> {
    let ((word, fixed), origin) = match &tenant.cloud {
        Slot::Given(cloud, origin) => (*cloud, origin.clone()),
        Slot::Absent => (CLOUDS[0], Origin::Default),
        Slot::Faulty => return None,
    };
    let slots = [("graph_url", &tenant.graph_url), ("authority_url", &tenant.authority_url)];
    let Some((graph, authority)) = fixed else {
        for (key, slot) in slots {
            if matches!(slot, Slot::Absent) {
                missing(draft, key, "https://HOST");
            }
        }
        return match (&tenant.graph_url, &tenant.authority_url) {
            (Slot::Given(graph, from), Slot::Given(authority, also_from)) => {
                Some(((word, origin), (graph.clone(), from.clone()), (authority.clone(), also_from.clone())))
            }
            _ => None,
        };
    };
    let mut clean = true;
    for (key, slot) in slots {
        if let Slot::Given(_, given_at) = slot {
            clean = false;
            let what = format!("tenants.{name}.{key}: the cloud \"{word}\" gives this URL");
            let remedy = format!("remove {key}, or write cloud = \"custom\" and both URLs");
            draft.mistake(given_at.clone(), About::Key("tenants"), what, remedy);
        }
    }
    let (graph, authority) = (Url::parse(graph).ok()?, Url::parse(authority).ok()?);
    clean.then(|| ((word, origin.clone()), (graph, origin.clone()), (authority, origin)))
}

/// Two names for one directory: its throttling and limits would be counted twice.
fn warn_of_twins(draft: &mut Draft) {
    let Config { tenants, .. } = &draft.config;
    let mut twins = Vec::new();
    let mut seen: BTreeMap<(&str, &str), &TenantName> = BTreeMap::new();
    for (name, tenant) in tenants {
        if let Some(first) = seen.insert((tenant.graph_url.as_str(), &tenant.tenant_id), name) {
            twins.push(format!("tenants.{first} and tenants.{name} are the same directory"));
        }
    }
    for what in twins {
        draft.warn(Origin::Default, what, "their limits and waiting times are counted apart; give both one name");
    }
}
