//! The states of a queue entry and of a call, and the effects that move them.
//!
//! ```text
//! queued ──claim: intent committed──▶ sending ──answer──▶ final
//!   ▲  └─policy─▶ final: expired │ cancelled │ suppressed
//!   ├─────────── Graph says "not carried out" ───┤
//!   ├── read-back: it did not happen ── unknown ◀┘ time-out, reset, 5xx, crash, in no bucket
//!   └── a person decides ─────────────── held ◀──┘ nothing could be read in time
//! ```

use std::time::Duration;

use super::id::{CallId, RequestId};

/// A stored word that no version of this program writes: the row was changed by hand or by a newer version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a known value here")]
pub struct UnknownWord(pub String);

/// An enum whose values are words in the database and in every output.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// Every value, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The word in the database and in every output.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl std::str::FromStr for $name {
            type Err = crate::domain::lifecycle::UnknownWord;
            fn from_str(word: &str) -> Result<Self, Self::Err> {
                match word { $($word => Ok(Self::$variant),)* other => Err(crate::domain::lifecycle::UnknownWord(other.to_owned())) }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.pad(self.as_str()) }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}

pub(super) use words;

words! {
    /// `reprovision_queue.state`.
    EntryState {
        /// May be taken when it is due. A crash leaves it as it is.
        Queued = "queued",
        /// Its intent is committed: from here until an answer is recorded the POST may have happened.
        Sending = "sending",
        /// A POST may have taken effect and no answer says. Never sent again from here without evidence.
        Unknown = "unknown",
        /// Evidence could not be had in time; a person resolves it.
        Held = "held",
    }
}

words! {
    /// Why a tenant is left alone for a while, and goes on by itself: `tenants.wait_code`.
    WaitCode {
        /// Graph carried nothing out and asked to come later: 429, or 503 with its own error.
        Throttled = "throttled",
        /// Graph answered, with a `Retry-After`.
        AskedToWait = "asked_to_wait",
        /// No connection to Graph.
        Unreachable = "unreachable",
        /// No token could be had.
        NoToken = "no_token",
        /// 401, and a fresh token is to be fetched.
        TokenRefused = "token_refused",
        /// The list of Cloud PCs could not be read.
        NoCloudPcs = "no_cloud_pcs",
    }
}

words! {
    /// Why a tenant makes no call until a person mends it: `tenants.block_code`.
    BlockCode {
        /// 401, also with a fresh token.
        Unauthorized = "unauthorized",
        /// 403.
        Forbidden = "forbidden",
        /// The tenant does not answer the action.
        ActionUnavailable = "action_unavailable",
        /// An answer that Graph does not give to this action.
        UnexpectedAnswer = "unexpected_answer",
    }
}

words! {
    /// `device_results.bucket`.
    Bucket {
        /// Graph accepted the reprovision for the device.
        Successful = "successful",
        /// Graph, or the call as a whole, refused it for the device.
        Failed = "failed",
        /// Graph knows no such device.
        NotFound = "not_found",
        /// The device is no Cloud PC, or cannot be reprovisioned.
        NotSupported = "not_supported",
        /// `expires_at` passed before it could be sent.
        Expired = "expired",
        /// A person withdrew it.
        Cancelled = "cancelled",
        /// A guard stopped it.
        Suppressed = "suppressed",
        /// It may have happened, no answer says. Never final.
        Unknown = "unknown",
    }
}

words! {
    /// `device_results.source`: on whose word the bucket stands.
    Source {
        /// Graph's answer to the call.
        Answer = "answer",
        /// Graph's remote action results, read afterwards.
        ReadBack = "read_back",
        /// A named person.
        Operator = "operator",
        /// A rule of this daemon, such as `expires_at`.
        Policy = "policy",
    }
}

words! {
    /// `graph_calls.state`.
    CallState {
        /// The intent is committed and no answer is recorded.
        Sending = "sending",
        /// Graph gave at least one device a bucket, or refused the one device of the call.
        Answered = "answered",
        /// Graph answered that it did not carry the call out.
        NotCarriedOut = "not_carried_out",
        /// Nothing reached Graph.
        NotSent = "not_sent",
        /// The whole outcome is in doubt.
        Unknown = "unknown",
    }
}

/// What becomes of one queue entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryEffect {
    /// It ends: a final result row is written and the entry leaves the queue.
    Final {
        /// The bucket it ends in.
        bucket: Bucket,
        /// On whose word.
        source: Source,
        /// Why, where the bucket alone does not say.
        detail: Option<String>,
    },
    /// Graph says this attempt failed and policy allows another: a result row that is not final, then queued.
    TryAgain {
        /// Why it failed.
        detail: Option<String>,
        /// Time until the next attempt.
        delay: Duration,
    },
    /// Nothing was carried out: queued again, no attempt charged and no result row.
    Requeue {
        /// Why it waits, one word for `wait_reason`.
        reason: &'static str,
        /// The largest call it may go in from now on.
        max_batch: Option<u32>,
    },
    /// It may have happened: a result row `unknown`, and the entry waits for evidence.
    Unknown {
        /// What was seen instead of an answer.
        detail: String,
    },
}

impl Recording {
    /// `leave_alone` as an effect on the tenant.
    pub fn wait(&self) -> TenantEffect {
        let reason = "Graph asked with Retry-After to be left alone".to_owned();
        self.leave_alone.map_or(TenantEffect::None, |delay| TenantEffect::Wait {
            delay,
            code: WaitCode::AskedToWait,
            reason,
        })
    }
}

/// What an answer means for every call of the tenant, by any worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TenantEffect {
    /// Nothing.
    None,
    /// Graph works for this tenant: waits, blocks and caution end.
    Clear,
    /// No call before `delay` is over.
    Wait {
        /// At least this long, counted from when it is committed.
        delay: Duration,
        /// Why, in one word.
        code: WaitCode,
        /// What was seen.
        reason: String,
    },
    /// No call but a slow probe, until a person mends what `reason` names.
    Block {
        /// Why, in one word.
        code: BlockCode,
        /// What was seen and what to do.
        reason: String,
        /// Time until the next probe.
        probe_after: Duration,
    },
    /// A call's whole outcome is in doubt: one small call at a time until one is answered.
    Caution,
}

/// The whole of commit 2, but for the evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// The call that ended.
    pub call_id: CallId,
    /// The state it ends in.
    pub state: CallState,
    /// What becomes of each of its entries: every one of them, once.
    pub entries: Vec<(RequestId, EntryEffect)>,
    /// What becomes of its tenant.
    pub tenant: TenantEffect,
    /// No call of the tenant before this is over, beside that: the answer asked for it and is no throttling.
    pub leave_alone: Option<Duration>,
    /// Texts in the buckets that no request of this call asked for.
    pub surplus: Vec<String>,
}
