//! Microsoft Graph, one tenant at a time: a trait for the engine, and the client behind it.

mod batch;
mod bulk_action;
mod caller;
mod client;
mod cloud_pcs;
mod credential;
mod http;
mod probe;
mod read_back;
mod wire;

use std::time::Duration;

use async_trait::async_trait;

pub use client::{ClientError, GraphClient};
pub use credential::TokenError;
pub use probe::{Offset, Probed, Said};

use crate::domain::answer::{Evidence, Exchange};
use crate::domain::id::{CallId, CloudPcId, ManagedDeviceId};
use crate::domain::read_back::{ReadBack, Subject};

/// What the engine asks of Graph for one tenant.
#[async_trait]
pub trait Graph: Send + Sync {
    /// Whether a call could be planned now: a token is at hand, and whatever else must be known first.
    fn ready(&self) -> bool;

    /// How long the token at hand is good for, if there is one and it is known.
    fn token_good_for(&self) -> Option<Duration> {
        None
    }

    /// Gets what `ready` asks for.
    async fn prepare(&self) -> Result<(), Unprepared>;

    /// Whether a call can name this device to the action, from what is known now. Those that it cannot go in calls of their
    /// own, which only look them up.
    fn has_target(&self, device: ManagedDeviceId) -> bool;

    /// What a call for these devices would send, from what is known now: it is written down with the intent.
    fn compose(&self, call: CallId, devices: &[ManagedDeviceId]) -> Composed;

    /// Makes one call, once. `fence` is asked last, when the connection stands and takes the request's body; its refusal
    /// means that nothing was sent which could be carried out.
    async fn reprovision(&self, outgoing: &Outgoing, fence: Fence) -> Reply;

    /// Reads back what became of a call for a device.
    async fn read_back(&self, subject: &Subject) -> ReadBack;

    /// Reads the device's remote actions, whatever else a read-back looks at.
    async fn remote_actions(&self, subject: &Subject) -> ReadBack;
}

/// Why no call can be made.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Unprepared {
    /// No token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The devices' Cloud PCs are not known: what came of reading the list of them.
    #[error("the list of Cloud PCs could not be read")]
    CloudPcs(Exchange),
}

/// What a call is going to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Composed {
    /// SHA-256 of the request body, in hexadecimal.
    pub digest: String,
    /// The Cloud PC of each device, in order, for an action that takes them; `None` for a device that has none or several.
    pub cloud_pcs: Option<Vec<Option<CloudPcId>>>,
}

/// A call that is to be made, as its committed intent has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Its id, sent as `client-request-id`.
    pub call: CallId,
    /// Its devices.
    pub devices: Vec<ManagedDeviceId>,
    /// As [`Composed::cloud_pcs`].
    pub cloud_pcs: Option<Vec<Option<CloudPcId>>>,
}

/// Says whether the call may still leave, and if not, why.
pub type Fence = Box<dyn FnOnce() -> Result<(), String> + Send>;

/// What came of one call.
#[derive(Debug, Clone)]
pub struct Reply {
    /// What decides.
    pub exchange: Exchange,
    /// What is kept.
    pub evidence: Evidence,
    /// The token was a fresh one, obtained because the one before it was refused.
    pub renewed_token: bool,
}
