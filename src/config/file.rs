//! The layer of the configuration file: TOML with the place of every key and value.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnose::{
    About, Complaint, Origin, SECRETS_ONLY_FROM_FILES, USE_A_SECRET_FILE, names_a_secret, nearest, shown,
};
use super::draft::{Draft, TenantDraft, tenant_path};
use super::keys::{KEYS, Key, Kind, TENANT_PREFIX, TenantField, setting};
use super::setting::Setting;
use crate::domain::id::TenantName;
use crate::domain::printable::printable;

/// No configuration is this long; a wrong path may name a database or a device.
const LONGEST_FILE_BYTES: u64 = 1024 * 1024;

/// Lays the file over the built-in defaults.
pub(super) fn lay(draft: &mut Draft, path: &Path) {
    let layer = Layer { path: Arc::from(path), text: String::new() };
    match read(path) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => Layer { text, ..layer }.lay(draft),
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let text = String::from_utf8_lossy(&error.as_bytes()[..valid]).into_owned();
                let origin = Layer { text, ..layer }.origin(valid);
                draft.mistake(origin, About::Layer, "not UTF-8 from here on", "save the file as UTF-8");
            }
        },
        Err(why) => {
            let remedy = "name a TOML file that the daemon's user can read: --config FILE or REPROVISIOND_CONFIG";
            draft.mistake(layer.whole(), About::Layer, why, remedy);
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let unreadable = |why: std::io::Error| match why.kind() {
        std::io::ErrorKind::NotFound => "the configuration file does not exist".to_owned(),
        std::io::ErrorKind::PermissionDenied => "the configuration file cannot be read: permission denied".to_owned(),
        _ => format!("the configuration file cannot be read: {why}"),
    };
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err("the configuration file is not a file".to_owned());
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(LONGEST_FILE_BYTES + 1).read_to_end(&mut bytes)).map_err(unreadable)?;
    if bytes.len() as u64 > LONGEST_FILE_BYTES {
        return Err(format!("the configuration file is longer than {LONGEST_FILE_BYTES} bytes"));
    }
    Ok(bytes)
}

/// The file's text, to tell places from offsets.
struct Layer {
    path: Arc<Path>,
    text: String,
}

impl Layer {
    fn whole(&self) -> Origin {
        Origin::File { path: self.path.clone(), at: None }
    }

    fn origin(&self, offset: usize) -> Origin {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.matches('\n').count() + 1;
        // An editor does not count the byte order mark.
        let column = before[line_start..].chars().filter(|c| *c != '\u{feff}').count() + 1;
        Origin::File { path: self.path.clone(), at: Some((line, column)) }
    }

    fn line(&self, offset: usize) -> Option<usize> {
        match self.origin(offset) {
            Origin::File { at, .. } => at.map(|(line, _)| line),
            _ => None,
        }
    }

    /// The value as it is written.
    fn literal(&self, span: Range<usize>) -> &str {
        self.text.get(span).unwrap_or_default()
    }

    fn lay(&self, draft: &mut Draft) {
        let (table, errors) = DeTable::parse_recoverable(&self.text);
        let before = draft.mistakes.len();
        self.sections(draft, table.get_ref());
        // What the parser made of a broken line is its guess, not what somebody wrote.
        let broken: Vec<_> =
            errors.iter().map(|error| self.line(error.span().map_or(self.text.len(), |span| span.start))).collect();
        let mut index = 0;
        draft.mistakes.retain(|finding| {
            index += 1;
            let line = match &finding.origin {
                Origin::File { at, .. } => at.map(|(line, _)| line),
                _ => None,
            };
            index <= before || !broken.contains(&line)
        });
        for (error, line) in errors.iter().zip(&broken) {
            let offset = error.span().map_or(self.text.len(), |span| span.start);
            // One slip can make the parser stumble twice; the first is the one to mend.
            let origin = self.origin(offset);
            let again = draft.mistakes.iter().any(|m| {
                m.about == About::Layer
                    && matches!(&m.origin, Origin::File { at: Some((at, _)), .. } if Some(*at) == *line)
            });
            if !again {
                let remedy = if error.message().contains("duplicate") {
                    "keep one of the two: each key and each section is there once"
                } else {
                    "write KEY = VALUE, with texts and durations in double quotes"
                };
                let what = format!("not TOML: {}", printable(error.message(), 200));
                draft.mistake(origin, About::Layer, what, remedy);
            }
        }
    }

    fn sections(&self, draft: &mut Draft, table: &DeTable<'_>) {
        for (name, value) in table {
            let section: &str = name.get_ref();
            let keys: Vec<&'static Key> = KEYS.iter().filter(|key| key.section() == Some(section)).collect();
            match value.get_ref() {
                DeValue::Table(tenants) if section == "tenants" => self.tenants(draft, tenants),
                DeValue::Table(values) if !keys.is_empty() => self.section(draft, section, &keys, values),
                _ if section == "tenants" => {
                    let what = "`tenants` holds one section for each tenant";
                    draft.mistake(self.origin(name.span().start), About::Key("tenants"), what, "write [tenants.NAME]");
                }
                _ if !keys.is_empty() => {
                    let about = About::Key(keys[0].path);
                    let what = format!("`{section}` is a section");
                    draft.mistake(self.origin(name.span().start), about, what, format!("write [{section}]"));
                }
                _ => self.unknown_section(draft, name),
            }
        }
    }

    fn section(&self, draft: &mut Draft, section: &str, keys: &[&'static Key], values: &DeTable<'_>) {
        for (name, value) in values {
            match keys.iter().find(|key| key.name() == &**name.get_ref()) {
                Some(key) => {
                    let Kind::Setting(setting) = &key.kind else { continue };
                    let origin = self.origin(value.span().start);
                    let literal = self.literal(value.span());
                    match text_of(value.get_ref(), setting) {
                        Ok(text) => draft.lay(key, setting, &text, literal, origin),
                        Err(complaint) => {
                            draft.faulty.insert(key.path);
                            let literal = (!matches!(setting, Setting::Database(_))).then_some(literal);
                            draft.wrong_value(origin, key, key.path, literal, complaint);
                        }
                    }
                }
                None => self.unknown_key(draft, section, name, keys),
            }
        }
    }

    fn tenants(&self, draft: &mut Draft, tenants: &DeTable<'_>) {
        let keys: Vec<&'static Key> = KEYS.iter().filter(|key| key.section().is_none()).collect();
        for (name, value) in tenants {
            let origin = self.origin(name.span().start);
            let shown = shown(name.get_ref());
            let DeValue::Table(values) = value.get_ref() else {
                if names_a_secret(name.get_ref()) && !keys.iter().any(|key| key.name() == &**name.get_ref()) {
                    self.unknown_key(draft, "tenants", name, &[]);
                    continue;
                }
                let what = format!("tenants.{shown}: a tenant is a section");
                let remedy = "write [tenants.NAME] above the keys of each tenant";
                draft.mistake(origin, About::Key("tenants"), what, remedy);
                continue;
            };
            let mut tenant = TenantDraft::declared_at(origin.clone());
            for (key_name, value) in values {
                match keys.iter().find(|key| key.name() == &**key_name.get_ref()) {
                    Some(key) => self.tenant_value(draft, &mut tenant, &shown, key, value),
                    None => self.unknown_key(draft, &format!("tenants.{shown}"), key_name, &keys),
                }
            }
            match name.get_ref().parse::<TenantName>() {
                Ok(name) => {
                    draft.tenants.insert(name, tenant);
                }
                Err(why) => draft.mistake(
                    origin,
                    About::Key("tenants"),
                    format!("tenants.{shown}: {why}"),
                    "choose another name; it is also the one in the tenant column of the queue",
                ),
            }
        }
    }

    fn tenant_value(
        &self,
        draft: &mut Draft,
        tenant: &mut TenantDraft,
        name: &str,
        key: &'static Key,
        value: &Spanned<DeValue<'_>>,
    ) {
        let Kind::Tenant(field) = &key.kind else { return };
        let origin = self.origin(value.span().start);
        let text = match (field, value.get_ref()) {
            (TenantField::Own(path), value) => {
                setting(path).map_or_else(|| Ok(String::new()), |own| text_of(value, own))
            }
            (_, DeValue::String(text)) => Ok(text.to_string()),
            _ => Err(Complaint::new("must be a text", "write it in double quotes")),
        };
        let outcome = match text {
            Ok(text) => tenant.lay(field, &text, &origin),
            Err(complaint) => {
                tenant.spoil(field);
                Err(complaint)
            }
        };
        if let Err(complaint) = outcome {
            draft.wrong_value(origin, key, &tenant_path(name, key), Some(self.literal(value.span())), complaint);
        }
    }

    fn unknown_section(&self, draft: &mut Draft, name: &Spanned<std::borrow::Cow<'_, str>>) {
        let sections = KEYS.iter().map(|key| key.section().unwrap_or("tenants"));
        let what = format!("unknown section `{}`", shown(name.get_ref()));
        let origin = self.origin(name.span().start);
        let belongs_to = KEYS.iter().find(|key| key.section().is_some() && key.name() == &**name.get_ref());
        let (what, remedy) = match (nearest(name.get_ref(), sections.clone()), belongs_to) {
            (Some(section), _) => (format!("{what}; did you mean `{section}`?"), String::new()),
            (None, Some(key)) => (format!("unknown key `{}`; did you mean `{}`?", key.name(), key.path), String::new()),
            (None, None) if names_a_secret(name.get_ref()) => {
                (format!("{what}: {SECRETS_ONLY_FROM_FILES}"), USE_A_SECRET_FILE.to_owned())
            }
            (None, None) => {
                let mut known: Vec<&str> = sections.collect();
                known.dedup();
                (what, format!("the sections are {}", known.join(", ")))
            }
        };
        draft.mistake(origin, About::UnknownSection, what, remedy);
    }

    fn unknown_key(
        &self,
        draft: &mut Draft,
        section: &str,
        name: &Spanned<std::borrow::Cow<'_, str>>,
        keys: &[&'static Key],
    ) {
        let unknown = format!("unknown key `{section}.{}`", shown(name.get_ref()));
        let names = keys.iter().map(|key| key.name());
        let elsewhere = KEYS.iter().find(|key| key.name() == &**name.get_ref());
        let (what, remedy) = match (nearest(name.get_ref(), names.clone()), elsewhere) {
            (Some(meant), _) => (format!("{unknown}; did you mean `{meant}`?"), String::new()),
            (None, _) if names_a_secret(name.get_ref()) => {
                (format!("{unknown}: {SECRETS_ONLY_FROM_FILES}"), USE_A_SECRET_FILE.to_owned())
            }
            (None, Some(key)) => (format!("{unknown}; did you mean `{}`?", key.path), String::new()),
            (None, None) => (unknown, format!("the keys of [{section}] are {}", names.collect::<Vec<_>>().join(", "))),
        };
        let about = keys.first().map_or(TENANT_PREFIX, |key| key.path);
        draft.mistake(self.origin(name.span().start), About::Key(about), what, remedy);
    }
}

/// The text that a variable would hold for the same value.
fn text_of(value: &DeValue<'_>, setting: &Setting) -> Result<String, Complaint> {
    match (setting, value) {
        (Setting::Database(_) | Setting::Time(..) | Setting::Word(_) | Setting::Listen(_), DeValue::String(text)) => {
            Ok(text.to_string())
        }
        (Setting::Time(..), DeValue::Integer(number)) => {
            Err(Complaint::new("a duration needs a unit", format!("write \"{number}s\" for seconds")))
        }
        (Setting::Time(..), DeValue::Float(_)) => Err(Complaint::new(
            "a duration needs a unit",
            "write whole numbers with the units h, m, s or ms, such as \"1m30s\"",
        )),
        (Setting::Count(..) | Setting::Factor(..), DeValue::Integer(number)) => {
            // Out of every range, as the number it stands for is.
            let whole = i128::from_str_radix(number.as_str(), number.radix()).unwrap_or(i128::MAX);
            Ok(whole.to_string())
        }
        (Setting::Factor(..), DeValue::Float(number)) => Ok(number.as_str().to_owned()),
        (Setting::Switch(_), DeValue::Boolean(switch)) => Ok(switch.to_string()),
        (Setting::Count(..), _) => Err(Complaint::new("must be a whole number", "write it in digits, without quotes")),
        (Setting::Factor(..), _) => Err(Complaint::new("must be a number", "write it in digits, without quotes")),
        (Setting::Switch(_), _) => Err(Complaint::new("must be true or false", "write true or false, without quotes")),
        (Setting::Time(..), _) => {
            Err(Complaint::new("must be a duration", "write it in double quotes, such as \"30s\""))
        }
        (Setting::Database(_) | Setting::Word(_) | Setting::Listen(_), _) => {
            Err(Complaint::new("must be a text", "write it in double quotes"))
        }
    }
}
