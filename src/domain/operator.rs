//! What a person may order: which requests, what is to become of them, and on whose word.

use super::id::{ManagedDeviceId, RequestId, TenantName};
use super::lifecycle::words;

words! {
    /// `operator_actions.decision`: how a doubt ends.
    Resolution {
        /// It happened: the request ends `successful`.
        Successful = "successful",
        /// It did not happen: the request is queued for a new attempt.
        Retry = "retry",
        /// It is to be left: the request ends `failed`.
        Failed = "failed",
    }
}

words! {
    /// `operator_actions.scope`.
    ScopeKind {
        /// Everything.
        All = "all",
        /// A tenant.
        Tenant = "tenant",
        /// A device, with its future requests.
        Device = "device",
        /// A request.
        Request = "request",
    }
}

/// What a person may order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Nothing more is sent from now on.
    Pause,
    /// A pause ends.
    Resume,
    /// What was not sent ends `cancelled`.
    Cancel,
    /// A doubt ends on a person's word.
    Resolve(Resolution),
}

impl Act {
    /// The word in `operator_actions.action`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Cancel => "cancel",
            Self::Resolve(_) => "resolve",
        }
    }

    /// How a doubt is resolved.
    pub fn decision(self) -> Option<Resolution> {
        match self {
            Self::Resolve(decision) => Some(decision),
            _ => None,
        }
    }
}

/// What an order is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Every registered tenant.
    All,
    /// One tenant.
    Tenant(TenantName),
    /// These devices, whatever their tenant.
    Devices(Vec<ManagedDeviceId>),
    /// These requests.
    Requests(Vec<RequestId>),
}

/// An order: what, about what, by whom and why. Both texts are kept for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// What is to be done.
    pub act: Act,
    /// What it is about.
    pub scope: Scope,
    /// The person who takes responsibility; not empty, at most [`MAX_TAKEN_BY`] bytes.
    pub taken_by: String,
    /// Why; not empty, at most [`MAX_REASON`] bytes.
    pub reason: String,
}

/// Bytes of `operator_actions.taken_by`.
pub const MAX_TAKEN_BY: usize = 256;

/// Bytes of `operator_actions.reason`.
pub const MAX_REASON: usize = 4000;
