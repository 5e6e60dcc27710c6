//! A configuration while its layers are laid over each other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::credential;
use super::database::DatabaseUrl;
use super::diagnose::{About, Complaint, Finding, Origin, shown};
use super::keys::{KEYS, Key, Kind, TENANT_PREFIX, TenantField, setting};
use super::setting::Setting;
use super::tenant::{self, Cloud};
use super::{Batch, Completion, Config, Database, Graph, Limits, Listen, Ops, Reconcile, Retry, UnknownPolicy, Worker};
use crate::domain::action::Action;
use crate::domain::id::TenantName;
use crate::domain::rate::Rate;

/// The layers so far.
pub(super) struct Draft {
    pub(super) config: Config,
    /// The settings that some layer gave, by path: the value as it may be shown, and where it came from.
    pub(super) given: BTreeMap<&'static str, (String, Origin)>,
    /// The settings whose highest layer is a mistake, by path: what they will be is not known.
    pub(super) faulty: BTreeSet<&'static str>,
    pub(super) tenants: BTreeMap<TenantName, TenantDraft>,
    /// Where relative paths in the configuration count from.
    pub(super) directory: PathBuf,
    pub(super) mistakes: Vec<Finding>,
    pub(super) warnings: Vec<Finding>,
}

/// A tenant while its keys are gathered.
pub(super) struct TenantDraft {
    /// What declared it.
    pub(super) declared: Origin,
    pub(super) cloud: Slot<Cloud>,
    pub(super) graph_url: Slot<Url>,
    pub(super) authority_url: Slot<Url>,
    pub(super) tenant_id: Slot<String>,
    pub(super) client_id: Slot<String>,
    pub(super) credential: Slot<credential::Kind>,
    pub(super) client_secret_file: Slot<String>,
    pub(super) certificate_file: Slot<String>,
    pub(super) federated_token_file: Slot<String>,
    /// Its own values of settings, by the setting's path.
    pub(super) own: BTreeMap<&'static str, Slot<String>>,
}

/// A tenant's value.
pub(super) enum Slot<T> {
    /// No layer gives it.
    Absent,
    /// The highest layer that gives it is a mistake, already reported.
    Faulty,
    /// The value and where it came from.
    Given(T, Origin),
}

impl TenantDraft {
    pub(super) fn declared_at(declared: Origin) -> Self {
        Self {
            declared,
            cloud: Slot::Absent,
            graph_url: Slot::Absent,
            authority_url: Slot::Absent,
            tenant_id: Slot::Absent,
            client_id: Slot::Absent,
            credential: Slot::Absent,
            client_secret_file: Slot::Absent,
            certificate_file: Slot::Absent,
            federated_token_file: Slot::Absent,
            own: BTreeMap::new(),
        }
    }

    /// Lays one value over what is there.
    pub(super) fn lay(&mut self, field: &TenantField, text: &str, origin: &Origin) -> Result<(), Complaint> {
        fn fill<T>(slot: &mut Slot<T>, value: Result<T, Complaint>, origin: &Origin) -> Result<(), Complaint> {
            let (filled, outcome) = match value {
                Ok(value) => (Slot::Given(value, origin.clone()), Ok(())),
                Err(complaint) => (Slot::Faulty, Err(complaint)),
            };
            *slot = filled;
            outcome
        }
        match field {
            TenantField::Cloud(slot) => fill(slot(self), tenant::cloud(text), origin),
            TenantField::BaseUrl(slot) => fill(slot(self), tenant::base_url(text), origin),
            TenantField::Directory(slot) => fill(slot(self), tenant::directory(text), origin),
            TenantField::Application(slot) => fill(slot(self), tenant::application(text), origin),
            TenantField::Credential(slot) => fill(slot(self), credential::kind(text), origin),
            TenantField::SecretFile(slot) => fill(slot(self), tenant::secret_path(text), origin),
            TenantField::Own(path) => {
                let slot = self.own.entry(path).or_insert(Slot::Absent);
                let setting = setting(path).ok_or_else(|| Complaint::new("no setting", "remove it"))?;
                fill(slot, setting.apply(&mut Config::default(), text).map(|_| text.to_owned()), origin)
            }
        }
    }

    /// Notes that a value is there but cannot be read, so that it is not reported as missing too.
    pub(super) fn spoil(&mut self, field: &TenantField) {
        match field {
            TenantField::Cloud(slot) => *slot(self) = Slot::Faulty,
            TenantField::BaseUrl(slot) => *slot(self) = Slot::Faulty,
            TenantField::Credential(slot) => *slot(self) = Slot::Faulty,
            TenantField::Directory(slot) | TenantField::Application(slot) | TenantField::SecretFile(slot) => {
                *slot(self) = Slot::Faulty;
            }
            TenantField::Own(path) => drop(self.own.insert(path, Slot::Faulty)),
        }
    }
}

impl Draft {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self {
            config: Config::default(),
            given: BTreeMap::new(),
            faulty: BTreeSet::new(),
            tenants: BTreeMap::new(),
            directory,
            mistakes: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Lays one setting over the layers below. `literal` is the value as it was written.
    pub(super) fn lay(&mut self, key: &'static Key, setting: &Setting, text: &str, literal: &str, origin: Origin) {
        match setting.apply(&mut self.config, text) {
            Ok(value) => {
                self.faulty.remove(key.path);
                self.given.insert(key.path, (value, origin));
            }
            Err(complaint) => {
                self.faulty.insert(key.path);
                let literal = (!matches!(setting, Setting::Database(_))).then_some(literal);
                self.wrong_value(origin, key, key.path, literal, complaint);
            }
        }
    }

    /// Reports a value that breaks a rule. `path` is the key's own, with the tenant's name; `literal` is `None` where
    /// the value must not be shown.
    pub(super) fn wrong_value(
        &mut self,
        origin: Origin,
        key: &'static Key,
        path: &str,
        literal: Option<&str>,
        Complaint { rule, remedy }: Complaint,
    ) {
        let value = literal.map(|literal| format!(" = {}", shown(literal))).unwrap_or_default();
        let what = format!("{path}{value}: {rule}");
        let remedy = match (remedy.as_str(), key.default) {
            ("", Some(default)) => format!("change it, or remove it for the default, {default}"),
            ("", None) => "change it, or remove it".to_owned(),
            _ => remedy,
        };
        self.mistakes.push(Finding { origin, what, remedy, about: About::Key(key.path) });
    }

    /// Reports anything else.
    pub(super) fn mistake(&mut self, origin: Origin, about: About, what: impl Into<String>, remedy: impl Into<String>) {
        self.mistakes.push(Finding { origin, what: what.into(), remedy: remedy.into(), about });
    }

    pub(super) fn warn(&mut self, origin: Origin, what: impl Into<String>, remedy: impl Into<String>) {
        self.warnings.push(Finding { origin, what: what.into(), remedy: remedy.into(), about: About::Other });
    }
}

/// `tenants.contoso.cloud`, for the key `tenants.NAME.cloud`.
pub(super) fn tenant_path(tenant: &str, key: &Key) -> String {
    format!("tenants.{tenant}.{}", key.path.strip_prefix(TENANT_PREFIX).unwrap_or(key.path))
}

impl Default for Config {
    /// The built-in defaults, from the table of keys. No tenants: nothing can be sent with it.
    fn default() -> Self {
        let mut config = blank();
        for key in KEYS {
            if let (Kind::Setting(setting), Some(default)) = (&key.kind, key.default) {
                let applied = setting.apply(&mut config, default);
                debug_assert!(applied.is_ok(), "the default of {} breaks its own rule", key.path);
            }
        }
        config
    }
}

/// What the defaults are written over; the table holds every field, and a test holds that.
fn blank() -> Config {
    const NONE: Duration = Duration::ZERO;
    Config {
        database: Database { url: DatabaseUrl::unset(), patience: NONE },
        worker: Worker {
            poll_interval: NONE,
            max_calls_in_flight: 0,
            drain_timeout: NONE,
            lease: NONE,
            send_within: NONE,
        },
        batch: Batch { max_devices: 0, linger: NONE },
        graph: Graph { action: Action::BulkReprovisionCloudPc, call_timeout: NONE, cloud_pcs_max_age: NONE },
        retry: Retry {
            first_delay: NONE,
            longest_delay: NONE,
            multiplier: 0.0,
            max_attempts: 0,
            failed: false,
            blocked_probe_interval: NONE,
        },
        reconcile: Reconcile {
            unknown_policy: UnknownPolicy::ReadBack,
            first_after: NONE,
            settle_after: NONE,
            give_up_after: NONE,
            clock_margin: NONE,
        },
        completion: Completion {
            track: false,
            first_after: NONE,
            shortest_delay: NONE,
            longest_delay: NONE,
            give_up_after: NONE,
            reads: Rate { calls: 0, period: NONE },
        },
        limits: Limits { open_doubts: 0, rate: Rate { calls: 0, period: NONE } },
        ops: Ops { listen: Listen::Off },
        tenants: BTreeMap::new(),
    }
}
