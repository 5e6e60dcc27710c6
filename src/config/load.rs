//! The layers in their order: built-in defaults, the file, the environment, flags; then what holds between keys.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::diagnose::{About, Finding, Mistakes, Origin};
use super::draft::Draft;
use super::keys::{KEYS, Kind};
use super::{Config, DatabaseUrl, Limits, Listen, Sources, environment, file, rules, tenant};
use crate::domain::action::Action;
use crate::domain::id::TenantName;

/// A configuration without mistakes.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What works but should not stay so.
    pub warnings: Vec<Finding>,
    /// Every value in force and where it comes from; passwords are not in it.
    pub effective: Vec<Effective>,
}

/// One value in force, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// `section.key` or `tenants.NAME.key`.
    pub key: String,
    /// The value, made safe to print, without passwords.
    pub value: String,
    /// The layer that gave it.
    pub origin: Origin,
}

impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value, origin } = self;
        write!(f, "{key} = {value}  ({origin})")
    }
}

/// Everything that `run` needs, or every mistake there is.
///
/// Besides the configuration file it looks into the files that hold the tenants' secrets, to say now what the first
/// token would fail on; the secrets themselves are not kept.
pub fn load(sources: &Sources) -> Result<Loaded, Mistakes> {
    let mut draft = gather(sources);
    rules::check(&mut draft);
    let whole =
        sources.file.as_ref().map_or(Origin::Default, |path| Origin::File { path: Arc::from(&**path), at: None });
    let tenants = tenant::settle(&mut draft, &sources.env, whole);
    let effective = KEYS.iter().filter_map(|key| setting_in_force(&draft, key)).chain(tenants).collect();
    match Mistakes::among(draft.mistakes) {
        Some(mistakes) => Err(mistakes),
        None => Ok(Loaded { config: draft.config, warnings: draft.warnings, effective }),
    }
}

/// The database alone, for commands that need nothing else: no tenant is demanded, and a mistake counts only if it
/// leaves the database in question.
pub fn load_database_url(sources: &Sources) -> Result<DatabaseUrl, Mistakes> {
    let draft = gather(sources);
    let given = draft.given.get("database.url").map(|(_, origin)| origin);
    let faulty = draft.faulty.contains("database.url");
    let by_flag = !faulty && matches!(given, Some(Origin::Flag(_)));
    let from_above = by_flag || !faulty && matches!(given, Some(Origin::Variable(_)));
    let nowhere = given.is_none();
    let matters = |finding: &Finding| match (finding.about, &finding.origin) {
        (About::Key("database.url"), Origin::File { .. }) => faulty || nowhere,
        // A misspelt variable was meant to win over the file.
        (About::Key("database.url"), Origin::Variable(_)) => !by_flag,
        (About::Key("database.url"), _) => true,
        (About::Layer, _) => !from_above,
        // It may be the section that was meant to name the database.
        (About::UnknownSection, _) => nowhere,
        _ => false,
    };
    match Mistakes::among(draft.mistakes.into_iter().filter(matters).collect()) {
        Some(mistakes) => Err(mistakes),
        None => Ok(draft.config.database.url),
    }
}

/// Where the daemon says how it is, for whoever asks it: whatever else is wrong with the configuration.
pub fn load_listen(sources: &Sources) -> Result<Listen, Mistakes> {
    let draft = gather(sources);
    let matters = |finding: &Finding| matches!(finding.about, About::Key("ops.listen") | About::Layer);
    match Mistakes::among(draft.mistakes.into_iter().filter(matters).collect()) {
        Some(mistakes) => Err(mistakes),
        None => Ok(draft.config.ops.listen),
    }
}

/// The names of the tenants that are declared, whatever else is wrong with them: who registers them need not be able to
/// read their secrets. A layer that cannot be read at all is a mistake, since it may declare some.
pub fn load_tenant_names(sources: &Sources) -> Result<Vec<TenantName>, Mistakes> {
    let draft = gather(sources);
    let unread = draft.mistakes.into_iter().filter(|finding| matches!(finding.about, About::Layer)).collect();
    match Mistakes::among(unread) {
        Some(mistakes) => Err(mistakes),
        None => Ok(draft.tenants.into_keys().collect()),
    }
}

/// What is configured but for what tenants sign in with: for whoever reckons with it and calls nobody, and so need not be able to
/// read secrets. The configuration itself has no tenants; beside it is what each of them calls, within which bounds.
pub fn load_bounds(sources: &Sources) -> Result<(Config, Vec<(Action, Limits)>), Mistakes> {
    let mut draft = gather(sources);
    rules::check(&mut draft);
    if let Some(mistakes) = Mistakes::among(draft.mistakes) {
        return Err(mistakes);
    }
    let own = draft.tenants.into_values().map(|tenant| tenant::with_own(&draft.config, tenant.own, |_, _, _| {}));
    let bounds = own.map(|own| (own.graph.action, own.limits)).collect();
    Ok((draft.config, bounds))
}

fn gather(sources: &Sources) -> Draft {
    // `parent` of a bare file name is the empty path, to which joining is harmless.
    let directory = sources.file.as_deref().and_then(Path::parent).map(PathBuf::from).unwrap_or_default();
    let mut draft = Draft::new(directory);
    if let Some(path) = &sources.file {
        file::lay(&mut draft, path);
    }
    environment::lay(&mut draft, &sources.env);
    if let Some(url) = &sources.database_flag {
        for key in KEYS {
            if let ("database.url", Kind::Setting(setting)) = (key.path, &key.kind) {
                draft.lay(key, setting, url, "", Origin::Flag("--database"));
            }
        }
    }
    draft
}

fn setting_in_force(draft: &Draft, key: &super::keys::Key) -> Option<Effective> {
    if !matches!(key.kind, Kind::Setting(_)) {
        return None;
    }
    let (value, origin) = match draft.given.get(key.path) {
        Some(given) => given.clone(),
        None => (key.default?.to_owned(), Origin::Default),
    };
    Some(Effective { key: key.path.to_owned(), value, origin })
}
