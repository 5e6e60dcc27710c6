//! One checked configuration from a TOML file, `REPROVISIOND_*` variables and flags, in that order.
//!
//! | file | subject |
//! |---|---|
//! | `keys` | the one table of keys: path, kind, range, default, meaning; everything else reads it |
//! | `setting` | a text becomes a value, or a complaint |
//! | `file`, `environment` | one layer each, laid over the layers before |
//! | `reload` | what a configuration that was read again changes, and what waits for a restart |
//! | `load` | the layers in order, then what holds between keys |
//! | `rules` | what holds between keys |
//! | `tenant`, `credential` | a tenant as a whole, and what it signs in with |
//! | `listen` | where health, metrics and the page are served |
//! | `secret_file`, `certificate` | the file of a secret, and what the file of a certificate must hold |
//! | `diagnose` | a mistake: where, what, which rule, what to do |
//!
//! Nothing here asks the process for its environment except [`Sources::from_process`].

mod certificate;
mod credential;
mod database;
mod diagnose;
mod draft;
mod duration;
mod environment;
mod file;
mod keys;
mod listen;
mod load;
mod reload;
mod rules;
mod secret_file;
mod setting;
mod sources;
mod tenant;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use url::Url;

pub use self::certificate::{ClientCertificate, NotACertificate};
pub use self::credential::Credential;
pub use self::database::{DatabaseKind, DatabaseUrl, NotADatabaseUrl};
pub use self::diagnose::{Finding, Mistakes, Origin};
pub use self::keys::{DescribedKey, described_keys, reference};
pub use self::listen::Listen;
pub use self::load::{Effective, Loaded, load, load_bounds, load_database_url, load_listen, load_tenant_names};
pub use self::reload::{Change, Reload, reload};
pub use self::sources::Sources;
use crate::domain::action::Action;
use crate::domain::id::TenantName;
use crate::domain::rate::Rate;

/// Everything `run` needs, already checked: no later code has to doubt a value.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the queue is.
    pub database: Database,
    /// How this process works.
    pub worker: Worker,
    /// How calls are filled.
    pub batch: Batch,
    /// How Graph is called.
    pub graph: Graph,
    /// When and how often something is tried again.
    pub retry: Retry,
    /// How a call in doubt is settled.
    pub reconcile: Reconcile,
    /// How an accepted reprovision is followed.
    pub completion: Completion,
    /// Bounds that protect tenants.
    pub limits: Limits,
    /// How the daemon is watched.
    pub ops: Ops,
    /// The tenants by name.
    pub tenants: BTreeMap<TenantName, Tenant>,
}

/// `[database]`
#[derive(Debug, Clone)]
pub struct Database {
    /// `sqlite:PATH` or `postgres://…`.
    pub url: DatabaseUrl,
    /// How long the database may take for one step before the connection is given up.
    pub patience: Duration,
}

/// `[worker]`
#[derive(Debug, Clone)]
pub struct Worker {
    /// The longest time between two looks at the queue, wake-ups apart.
    pub poll_interval: Duration,
    /// Calls to Graph under way at once in this process.
    pub max_calls_in_flight: usize,
    /// How long a stop waits for calls in flight.
    pub drain_timeout: Duration,
    /// How long a worker that does not renew its heartbeat is still believed alive.
    pub lease: Duration,
    /// The oldest an intent may be when its POST leaves.
    pub send_within: Duration,
}

/// `[batch]`
#[derive(Debug, Clone)]
pub struct Batch {
    /// Devices in one call.
    pub max_devices: usize,
    /// How long a request may wait for its call to fill.
    pub linger: Duration,
}

/// `[graph]`
#[derive(Debug, Clone)]
pub struct Graph {
    /// The Graph action that is called.
    pub action: Action,
    /// Time for a whole call, from connecting to the last byte.
    pub call_timeout: Duration,
    /// How long the list of a tenant's Cloud PCs is good for.
    pub cloud_pcs_max_age: Duration,
}

/// `[retry]`
#[derive(Debug, Clone)]
pub struct Retry {
    /// The cap of the first delay; each next cap is `multiplier` times the last.
    pub first_delay: Duration,
    /// The cap that delays never pass.
    pub longest_delay: Duration,
    /// Growth from one delay to the next.
    pub multiplier: f64,
    /// Attempts a request may be charged with before it ends.
    pub max_attempts: u32,
    /// Whether a device in Graph's `failedDeviceIds` is tried again.
    pub failed: bool,
    /// How often a blocked tenant is probed with one small call.
    pub blocked_probe_interval: Duration,
}

/// `[reconcile]`
#[derive(Debug, Clone)]
pub struct Reconcile {
    /// Whether a doubt is settled by reading back or handed to a person.
    pub unknown_policy: UnknownPolicy,
    /// Graph needs time to show an action: not read before.
    pub first_after: Duration,
    /// A reprovision that read-back does not show by then did not happen.
    pub settle_after: Duration,
    /// A doubt that nothing could be read about by then goes to a person.
    pub give_up_after: Duration,
    /// How far Graph's clock may be from the database's.
    pub clock_margin: Duration,
}

/// What becomes of a device whose call has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownPolicy {
    /// Ask Graph's remote action results.
    ReadBack,
    /// Hold it for a person.
    Hold,
}

/// `[completion]`
#[derive(Debug, Clone)]
pub struct Completion {
    /// Whether an accepted reprovision is followed at all.
    pub track: bool,
    /// From the acceptance to the first look.
    pub first_after: Duration,
    /// From one look to the next at least.
    pub shortest_delay: Duration,
    /// And at most.
    pub longest_delay: Duration,
    /// What has not ended by then is not followed any more.
    pub give_up_after: Duration,
    /// Reads of one tenant, by all workers together.
    pub reads: Rate,
}

/// `[limits]`
#[derive(Debug, Clone)]
pub struct Limits {
    /// Calls of one tenant that may be in doubt before no new one is made.
    pub open_doubts: u32,
    /// Calls of one tenant, by all workers together, in any such period.
    pub rate: Rate,
}

/// `[ops]`
#[derive(Debug, Clone)]
pub struct Ops {
    /// Where health, metrics and the page are served.
    pub listen: Listen,
}

/// `[tenants.NAME]`
#[derive(Debug, Clone)]
pub struct Tenant {
    /// Base URL of Graph, without a version.
    pub graph_url: Url,
    /// Base URL of Entra ID.
    pub authority_url: Url,
    /// Directory (tenant) ID or a verified domain.
    pub tenant_id: String,
    /// How the daemon signs in.
    pub credential: Credential,
    /// What is called there: the tenant's own, or `[graph]`'s.
    pub action: Action,
    /// Its bounds: its own, or those of `[limits]`.
    pub limits: Limits,
}
