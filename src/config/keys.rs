//! The one table of keys. Parsing, variables, defaults, "did you mean" and the reference all read it.

use std::time::Duration;

use url::Url;

use super::credential;
use super::draft::{Slot, TenantDraft};
use super::setting::{Setting, one_of};
use super::sources::PREFIX;
use super::tenant::{self, Cloud};
use super::{Config, UnknownPolicy};
use crate::domain::action::Action;

/// What stands for a tenant's name in the path of a key.
pub(super) const TENANT_PREFIX: &str = "tenants.NAME.";

/// One key.
pub(super) struct Key {
    /// `section.key`, or `tenants.NAME.key`.
    pub(super) path: &'static str,
    /// What values it takes and where they go.
    pub(super) kind: Kind,
    /// The value it has when no layer sets it, as a variable would write it.
    pub(super) default: Option<&'static str>,
    /// What it is, in a line.
    pub(super) meaning: &'static str,
    /// When a change of it is in force.
    pub(super) takes_effect: Takes,
}

/// When a change of a key is in force.
#[derive(Clone, Copy)]
pub(super) enum Takes {
    /// From the next look at the queue after SIGHUP on. Calls under way keep what they began with.
    OnReload,
    /// At the next start, because of this.
    Restart(&'static str),
}

/// What values a key takes and where they go.
pub(super) enum Kind {
    /// A field of [`Config`].
    Setting(Setting),
    /// A field of a tenant.
    Tenant(TenantField),
}

/// A field of a tenant.
pub(super) enum TenantField {
    Cloud(fn(&mut TenantDraft) -> &mut Slot<Cloud>),
    BaseUrl(fn(&mut TenantDraft) -> &mut Slot<Url>),
    Directory(fn(&mut TenantDraft) -> &mut Slot<String>),
    Application(fn(&mut TenantDraft) -> &mut Slot<String>),
    Credential(fn(&mut TenantDraft) -> &mut Slot<credential::Kind>),
    SecretFile(fn(&mut TenantDraft) -> &mut Slot<String>),
    /// The tenant's own value of the setting with this path.
    Own(&'static str),
}

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);
const MIN: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

/// What is safe for a key of which nobody has thought.
const AT_START: Takes = Takes::Restart("it is read at the start");
const OF_CONNECTIONS: &str = "connections are made with it";
const OF_CLIENT: &str = "the tenant's client is made with it";
const OF_LEASE: &str = "other workers believe in the lease that was registered";
const OF_TRACKING: &str = "the database has it from the start, for all workers";

const fn key(path: &'static str, default: &'static str, kind: Setting, meaning: &'static str) -> Key {
    Key { path, kind: Kind::Setting(kind), default: Some(default), meaning, takes_effect: AT_START }
}

/// A key whose change a reload puts in force: whatever reads it reads it anew.
const fn live(path: &'static str, default: &'static str, kind: Setting, meaning: &'static str) -> Key {
    Key { takes_effect: Takes::OnReload, ..key(path, default, kind, meaning) }
}

/// A key whose change needs a restart for this reason.
const fn fixed(
    path: &'static str,
    default: &'static str,
    kind: Setting,
    meaning: &'static str,
    why: &'static str,
) -> Key {
    Key { takes_effect: Takes::Restart(why), ..key(path, default, kind, meaning) }
}

/// A tenant's key whose change a reload puts in force.
const fn live_tenant_key(
    path: &'static str,
    default: Option<&'static str>,
    kind: TenantField,
    meaning: &'static str,
) -> Key {
    Key { takes_effect: Takes::OnReload, ..tenant_key(path, default, kind, meaning) }
}

const fn tenant_key(
    path: &'static str,
    default: Option<&'static str>,
    kind: TenantField,
    meaning: &'static str,
) -> Key {
    Key { path, kind: Kind::Tenant(kind), default, meaning, takes_effect: Takes::Restart(OF_CLIENT) }
}

const fn time(least: Duration, most: Duration, field: fn(&mut Config) -> &mut Duration) -> Setting {
    Setting::Time(least, most, field)
}

/// Every key, in the order in which people meet them.
pub(super) const KEYS: &[Key] = &[
    fixed(
        "database.url",
        "sqlite:reprovisiond.db",
        Setting::Database(|c| &mut c.database.url),
        "Where the queue is: sqlite:PATH or postgres://USER@HOST/DATABASE",
        OF_CONNECTIONS,
    ),
    fixed(
        "database.patience",
        "30s",
        time(S, MIN.saturating_mul(10), |c| &mut c.database.patience),
        "How long the database may take for one step before its connection is given up and the step tried again",
        OF_CONNECTIONS,
    ),
    live(
        "worker.poll_interval",
        "30s",
        time(MS.saturating_mul(100), HOUR, |c| &mut c.worker.poll_interval),
        "The longest time between two looks at the queue; new requests wake the worker before",
    ),
    live(
        "worker.max_calls_in_flight",
        "4",
        Setting::Count(1, 64, |c, n| c.worker.max_calls_in_flight = n as usize),
        "Calls to Graph under way at once in this process, for each tenant",
    ),
    live(
        "worker.drain_timeout",
        "60s",
        time(Duration::ZERO, HOUR, |c| &mut c.worker.drain_timeout),
        "How long a stop waits for calls in flight; what has no answer by then is read back later",
    ),
    fixed(
        "worker.lease",
        "60s",
        time(S.saturating_mul(2), HOUR, |c| &mut c.worker.lease),
        "How long a worker that does not renew its heartbeat is still believed alive",
        OF_LEASE,
    ),
    live(
        "worker.send_within",
        "10s",
        time(MS.saturating_mul(100), MIN.saturating_mul(10), |c| &mut c.worker.send_within),
        "The oldest an intent may be when its call leaves; must be shorter than worker.lease",
    ),
    live(
        "batch.max_devices",
        "100",
        Setting::Count(1, 1000, |c, n| c.batch.max_devices = n as usize),
        "Devices in one call at most",
    ),
    live(
        "batch.linger",
        "0s",
        time(Duration::ZERO, MIN.saturating_mul(10), |c| &mut c.batch.linger),
        "How long a request may wait for its call to fill",
    ),
    fixed(
        "graph.action",
        "bulk-reprovision-cloud-pc",
        Setting::Word(&[
            ("bulk-reprovision-cloud-pc", |c| c.graph.action = Action::BulkReprovisionCloudPc),
            ("cloud-pc-bulk-action", |c| c.graph.action = Action::CloudPcBulkAction),
            ("cloud-pc-reprovision", |c| c.graph.action = Action::CloudPcReprovision),
        ]),
        "The Graph action that is called",
        OF_CLIENT,
    ),
    fixed(
        "graph.call_timeout",
        "60s",
        time(MS.saturating_mul(100), MIN.saturating_mul(10), |c| &mut c.graph.call_timeout),
        "Time for a whole call, from connecting to the last byte; a call that takes longer is in doubt",
        OF_CLIENT,
    ),
    fixed(
        "graph.cloud_pcs_max_age",
        "10m",
        time(S, HOUR.saturating_mul(24), |c| &mut c.graph.cloud_pcs_max_age),
        "How long a tenant's list of Cloud PCs is good for, with an action that takes their IDs",
        OF_CLIENT,
    ),
    live(
        "retry.first_delay",
        "2s",
        time(MS.saturating_mul(10), HOUR, |c| &mut c.retry.first_delay),
        "The cap of the first delay; the delay itself is drawn at random below it",
    ),
    live(
        "retry.longest_delay",
        "5m",
        time(MS.saturating_mul(100), HOUR.saturating_mul(24), |c| &mut c.retry.longest_delay),
        "The cap that delays never pass; at least retry.first_delay",
    ),
    live(
        "retry.multiplier",
        "2.0",
        Setting::Factor(1.0, 10.0, |c| &mut c.retry.multiplier),
        "Growth of the cap from one delay to the next",
    ),
    live(
        "retry.max_attempts",
        "3",
        Setting::Count(1, 20, |c, n| c.retry.max_attempts = n),
        "Attempts that a request may be charged with before it ends",
    ),
    live(
        "retry.failed",
        "false",
        Setting::Switch(|c| &mut c.retry.failed),
        "Whether a device that Graph lists as failed is tried again",
    ),
    live(
        "retry.blocked_probe_interval",
        "15m",
        time(S, HOUR.saturating_mul(24), |c| &mut c.retry.blocked_probe_interval),
        "How often a tenant that refuses us is probed with one small call",
    ),
    live(
        "reconcile.unknown_policy",
        "read-back",
        Setting::Word(&[
            ("read-back", |c| c.reconcile.unknown_policy = UnknownPolicy::ReadBack),
            ("hold", |c| c.reconcile.unknown_policy = UnknownPolicy::Hold),
        ]),
        "Whether a doubt is settled by reading back or held for a person",
    ),
    live(
        "reconcile.first_after",
        "1m",
        time(Duration::ZERO, HOUR.saturating_mul(24), |c| &mut c.reconcile.first_after),
        "Graph needs time to show an action: a doubt is not read back before",
    ),
    live(
        "reconcile.settle_after",
        "15m",
        time(S, HOUR.saturating_mul(168), |c| &mut c.reconcile.settle_after),
        "A reprovision that does not show by then did not happen and is sent again; longer than reconcile.first_after",
    ),
    live(
        "reconcile.give_up_after",
        "2h",
        time(S, HOUR.saturating_mul(720), |c| &mut c.reconcile.give_up_after),
        "A doubt that could not be read by then is held for a person; longer than reconcile.settle_after",
    ),
    live(
        "reconcile.clock_margin",
        "2m",
        time(Duration::ZERO, HOUR, |c| &mut c.reconcile.clock_margin),
        "How far Graph's clock may be from the database's",
    ),
    fixed(
        "completion.track",
        "false",
        Setting::Switch(|c| &mut c.completion.track),
        "Whether an accepted reprovision is read back until it is done or has failed",
        OF_TRACKING,
    ),
    fixed(
        "completion.first_after",
        "5m",
        time(MS.saturating_mul(100), HOUR.saturating_mul(24), |c| &mut c.completion.first_after),
        "Time from the acceptance of a reprovision to the first look at it",
        OF_TRACKING,
    ),
    live(
        "completion.shortest_delay",
        "5m",
        time(MS.saturating_mul(100), HOUR.saturating_mul(24), |c| &mut c.completion.shortest_delay),
        "The shortest time between two looks at one reprovision; they get rarer with its age",
    ),
    live(
        "completion.longest_delay",
        "1h",
        time(MS.saturating_mul(100), HOUR.saturating_mul(24), |c| &mut c.completion.longest_delay),
        "The longest time between two looks at one reprovision; at least completion.shortest_delay",
    ),
    live(
        "completion.give_up_after",
        "24h",
        time(S, HOUR.saturating_mul(720), |c| &mut c.completion.give_up_after),
        "What shows no end by then is recorded as untracked; longer than completion.first_after",
    ),
    live(
        "completion.reads_per_period",
        "300",
        Setting::Count(1, 1_000_000, |c, n| c.completion.reads.calls = n),
        "Looks at reprovisions of one tenant in any completion.period, by all workers together",
    ),
    live(
        "completion.period",
        "1m",
        time(S, HOUR, |c| &mut c.completion.reads.period),
        "The period that completion.reads_per_period is counted in",
    ),
    live(
        "limits.open_doubts",
        "2",
        Setting::Count(1, 100, |c, n| c.limits.open_doubts = n),
        "Calls of one tenant that may be in doubt before no new one is made",
    ),
    live(
        "limits.calls_per_period",
        "100",
        Setting::Count(1, 1_000_000, |c, n| c.limits.rate.calls = n),
        "Requests for one tenant in any limits.period, by all workers together; they leave evenly",
    ),
    live(
        "limits.period",
        "20s",
        time(S, HOUR, |c| &mut c.limits.rate.period),
        "The period that limits.calls_per_period is counted in",
    ),
    fixed(
        "ops.listen",
        "",
        Setting::Listen(|c| &mut c.ops.listen),
        "Where health, metrics and a page for people are served; nowhere if empty",
        "the port or the socket is opened at the start",
    ),
    tenant_key(
        "tenants.NAME.cloud",
        Some("global"),
        TenantField::Cloud(|t| &mut t.cloud),
        "Which Microsoft cloud the tenant is in; custom takes the two URLs from here",
    ),
    tenant_key(
        "tenants.NAME.graph_url",
        None,
        TenantField::BaseUrl(|t| &mut t.graph_url),
        "Base URL of Graph, without a version; only with cloud = \"custom\"",
    ),
    tenant_key(
        "tenants.NAME.authority_url",
        None,
        TenantField::BaseUrl(|t| &mut t.authority_url),
        "Base URL of Entra ID; only with cloud = \"custom\"",
    ),
    tenant_key(
        "tenants.NAME.tenant_id",
        None,
        TenantField::Directory(|t| &mut t.tenant_id),
        "Directory (tenant) ID, or a domain verified in that directory",
    ),
    tenant_key(
        "tenants.NAME.client_id",
        None,
        TenantField::Application(|t| &mut t.client_id),
        "Application (client) ID of the app registration; with a managed identity, that of a user-assigned one",
    ),
    tenant_key(
        "tenants.NAME.credential",
        Some("client-secret"),
        TenantField::Credential(|t| &mut t.credential),
        "How the daemon signs in to Entra ID",
    ),
    tenant_key(
        "tenants.NAME.client_secret_file",
        None,
        TenantField::SecretFile(|t| &mut t.client_secret_file),
        "The file that holds the client secret; relative to this file, or $CREDENTIALS_DIRECTORY/NAME",
    ),
    tenant_key(
        "tenants.NAME.certificate_file",
        None,
        TenantField::SecretFile(|t| &mut t.certificate_file),
        "The PEM file that holds the certificate and its RSA key; only with credential = \"certificate\"",
    ),
    tenant_key(
        "tenants.NAME.federated_token_file",
        None,
        TenantField::SecretFile(|t| &mut t.federated_token_file),
        "The file that holds the workload's token; only with credential = \"workload-identity\"",
    ),
    tenant_key(
        "tenants.NAME.action",
        None,
        TenantField::Own("graph.action"),
        "The Graph action that is called for this tenant, in place of graph.action",
    ),
    live_tenant_key(
        "tenants.NAME.calls_per_period",
        None,
        TenantField::Own("limits.calls_per_period"),
        "This tenant's own, in place of limits.calls_per_period",
    ),
    live_tenant_key(
        "tenants.NAME.period",
        None,
        TenantField::Own("limits.period"),
        "This tenant's own, in place of limits.period",
    ),
    live_tenant_key(
        "tenants.NAME.open_doubts",
        None,
        TenantField::Own("limits.open_doubts"),
        "This tenant's own, in place of limits.open_doubts",
    ),
];

impl Key {
    /// `key` of `section.key`.
    pub(super) fn name(&self) -> &'static str {
        self.path.rsplit('.').next().unwrap_or(self.path)
    }

    /// `section` of `section.key`; `None` for a key of a tenant.
    pub(super) fn section(&self) -> Option<&'static str> {
        match self.kind {
            Kind::Setting(_) => self.path.split('.').next(),
            Kind::Tenant(_) => None,
        }
    }

    /// The variable that sets it; of a tenant's key with `NAME` in the tenant's place.
    pub(super) fn variable(&self) -> String {
        format!("{PREFIX}{}", self.path.to_uppercase().replace('.', "_"))
    }

    /// What values it takes.
    pub(super) fn takes(&self) -> String {
        match &self.kind {
            Kind::Setting(setting) => setting.takes(),
            Kind::Tenant(TenantField::Cloud(_)) => one_of(tenant::CLOUDS.iter().map(|(word, _)| *word)),
            Kind::Tenant(TenantField::BaseUrl(_)) => "an https URL; http on this host only".to_owned(),
            Kind::Tenant(TenantField::Directory(_)) => "a GUID or a domain".to_owned(),
            Kind::Tenant(TenantField::Application(_)) => "a GUID".to_owned(),
            Kind::Tenant(TenantField::Credential(_)) => one_of(credential::words()),
            Kind::Tenant(TenantField::SecretFile(_)) => "a path".to_owned(),
            Kind::Tenant(TenantField::Own(path)) => setting(path).map(Setting::takes).unwrap_or_default(),
        }
    }
}

/// The setting of that path.
pub(super) fn setting(path: &str) -> Option<&'static Setting> {
    KEYS.iter().find(|key| key.path == path).and_then(|key| match &key.kind {
        Kind::Setting(setting) => Some(setting),
        Kind::Tenant(_) => None,
    })
}

/// A key as it is told to people.
#[derive(Debug)]
pub struct DescribedKey {
    /// `section.key`, or `tenants.NAME.key`.
    pub path: &'static str,
    /// What it is, in a line without a full stop.
    pub meaning: &'static str,
    /// What values it takes.
    pub takes: String,
    /// The value it has when no layer sets it.
    pub default: Option<&'static str>,
    /// The variable that sets it.
    pub variable: String,
    /// When a change of it is in force.
    pub changes: String,
}

/// Every key, in the table's order.
pub fn described_keys() -> impl Iterator<Item = DescribedKey> {
    KEYS.iter().map(|key| DescribedKey {
        path: key.path,
        meaning: key.meaning,
        takes: key.takes(),
        default: key.default,
        variable: key.variable(),
        changes: key.takes_effect.shown(&key.kind),
    })
}

/// Every key with its variable, its values, its default and its meaning, for people.
pub fn reference() -> String {
    described_keys()
        .map(|DescribedKey { path, meaning, takes, default, variable, changes }| {
            let default = default.unwrap_or("none");
            format!("{path}\n  {meaning}.\n  takes:    {takes}\n  default:  {default}\n  variable: {variable}\n  changes:  {changes}\n")
        })
        .collect::<Vec<_>>()
        .join("\n")
}
