//! Microsoft Graph, one tenant at a time: a trait for the engine, and the client behind it.

mod client;
mod credential;
mod http;
mod wire;

use async_trait::async_trait;

pub use client::{ClientError, GraphClient};
pub use credential::TokenError;

use crate::domain::answer::{Evidence, Exchange};
use crate::domain::id::{CallId, ManagedDeviceId};
use crate::domain::read_back::ReadBack;

/// What the engine asks of Graph for one tenant.
#[async_trait]
pub trait Graph: Send + Sync {
    /// Whether a call could leave now without waiting for a token.
    fn has_token(&self) -> bool;

    /// Gets a token if none is at hand.
    async fn prepare(&self) -> Result<(), TokenError>;

    /// SHA-256 of the request body for these devices, in hexadecimal.
    fn digest(&self, devices: &[ManagedDeviceId]) -> String;

    /// Makes one call, once. `fence` is asked last, when the connection stands and takes the request's body; its refusal
    /// means that nothing was sent which could be carried out.
    async fn reprovision(&self, call: CallId, devices: &[ManagedDeviceId], fence: Fence) -> Reply;

    /// Reads a device's remote actions.
    async fn remote_actions(&self, device: ManagedDeviceId) -> ReadBack;
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
