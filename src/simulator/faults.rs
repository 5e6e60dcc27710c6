//! Faults: what goes wrong, on which call, by script or by seed.
//!
//! A script is a list of [`Fault`]s. For each call, in order: every matching `latency` is added up, and the first
//! other matching fault takes effect. Each fault is used once unless `times` says otherwise. `nth` counts the calls of
//! one endpoint from 1, refused ones too.
//!
//! As JSON (a file, or the body of `POST /simulator/faults`):
//!
//! ```json
//! [{"nth": 2, "effect": {"status": {"code": 429, "retry_after": {"seconds": 5}}}},
//!  {"times": 3, "effect": "reset_after"},
//!  {"on": "token", "times": "always", "effect": {"status": {"code": 503}}},
//!  {"effect": {"poison": "30d0e128-de93-41dc-89ec-33d84bb662a0"}}]
//! ```
//!
//! or, to add faults by seed, `{"script": [ … ], "random": {"seed": 7, "rate": 0.2}}`. The short form of the command
//! line is described at [`FaultScript::from_str`](std::str::FromStr::from_str).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::action::AnswerShape;
use super::humane;
use crate::domain::id::ManagedDeviceId;

/// Where a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Endpoint {
    /// The call that reprovisions, by whichever interface: for `cloud-pc-reprovision`, the `$batch` or the single POST.
    #[default]
    Action,
    /// The read-back of a device's remote actions, by managed device ID or by Cloud PC.
    ReadBack,
    /// The token endpoint.
    Token,
    /// The list of Cloud PCs, and one of them.
    List,
    /// One request inside a `$batch`.
    BatchItem,
    /// The list of bulk actions, and one of them.
    LookUp,
}

/// How often a fault is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Times {
    /// This often.
    Count(u64),
    /// Without end.
    #[serde(with = "always")]
    Always,
}

mod always {
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str("always")
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<(), D::Error> {
        match String::deserialize(from)?.as_str() {
            "always" => Ok(()),
            _ => Err(de::Error::custom("`times` is a number or \"always\"")),
        }
    }
}

/// The `Retry-After` header of a [`StatusFault`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryAfter {
    /// No such header.
    #[default]
    Missing,
    /// Whole seconds.
    Seconds(u64),
    /// An HTTP date this many seconds from now (in the past, if negative).
    Date(i64),
    /// `0`.
    Zero,
    /// `-5`.
    Negative,
    /// More seconds than any integer holds.
    Huge,
    /// Neither a number nor a date.
    Garbage,
}

/// The body of a [`StatusFault`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorBody {
    /// The service's own error object (Graph's, or Entra's at the token endpoint): the service itself refused.
    #[default]
    Service,
    /// No body, as from a load balancer in front of it.
    None,
    /// A page of HTML, as from a proxy.
    Html,
}

/// A status answered instead of the true answer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatusFault {
    /// 200 to 599.
    pub code: u16,
    /// Its `Retry-After`.
    #[serde(default)]
    pub retry_after: RetryAfter,
    /// Its body.
    #[serde(default)]
    pub body: ErrorBody,
    /// The body's error code; one that fits the status if none.
    #[serde(default)]
    pub error_code: Option<String>,
    /// The body's message; `{segment}` in it becomes the last segment of the action struck.
    #[serde(default)]
    pub message: Option<String>,
}

/// Which wrong type an answer's lists take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WrongType {
    /// Each list is a string.
    String,
    /// Each list is a number.
    Number,
    /// The lists are right, and the whole stands in an array.
    Array,
}

/// What goes wrong. "Done" says that the devices are reprovisioned (or the token issued) all the same.
///
/// What is said of lists holds for the action that this project is named for. Its successors have others: a `$batch` has
/// `responses`, and a bulk action its `actionSummary` and, over time, its read-back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Not done; this status instead.
    Status(StatusFault),
    /// Done at once, answered truly this much later: what a client with a shorter time-out does not see.
    #[serde(with = "humane")]
    Latency(Duration),
    /// Not done, never answered; the connection stays open.
    Hang,
    /// Done, never answered; the connection stays open.
    HangAfter,
    /// Request lost: not done, and the connection reset without an answer. Inside a `$batch`: not done, and its response
    /// is missing.
    ResetBefore,
    /// Answer lost: done, and the connection reset without an answer. Inside a `$batch`: done, and its response is missing.
    ResetAfter,
    /// Done; the body ends half-way to its `Content-Length`.
    Truncated,
    /// Done; the true answer behind 100 MB of padding, with no length announced.
    Huge,
    /// Done; the lists have another type. A bulk action's summary too.
    WrongType(WrongType),
    /// Done; the true status without a body.
    Empty,
    /// Done; the true status with a page of HTML.
    NotJson,
    /// Done; one device is missing from all four lists, one response from a `$batch`, one Cloud PC of a bulk action from
    /// the read-back for ever.
    InNoBucket,
    /// Done; one device stands in two lists. Two responses of a `$batch` have its id and disagree. A bulk action: none.
    InTwoBuckets,
    /// Done; `successfulDeviceIds` has an ID that was not asked for, as has a `$batch`, or a bulk action's `cloudPcIds`.
    SurplusId,
    /// Done; the answer's GUIDs are in upper case; the ids of a `$batch` too.
    UpperCase,
    /// Done; all four lists are null, or `responses`, or `actionSummary`.
    NullLists,
    /// Done; all four lists are missing, or `responses`, or `actionSummary`.
    MissingLists,
    /// Done, and truly answered: lists without a device are null, as are a bulk action's counts of zero. A `$batch`: none.
    NullEmptyLists,
    /// Done, and truly answered: lists without a device are missing, as are a bulk action's counts of zero, and in a
    /// `$batch` a body that is null.
    MissingEmptyLists,
    /// Done, and truly answered in this shape; of the others, successors of the action have only the one without a body.
    Shape(AnswerShape),
    /// Not done: any call that holds this device, or this Cloud PC, is a 400; in a `$batch`, that request is. Without end unless `times` says otherwise.
    Poison(ManagedDeviceId),
    /// Done; this status instead of the true one.
    DoneThenStatus(StatusFault),
}

impl Effect {
    /// Whether it has a meaning there; `Err` says why it has none.
    fn fits(&self, endpoint: Endpoint) -> Result<(), &'static str> {
        use Effect::{
            DoneThenStatus, InNoBucket, InTwoBuckets, MissingEmptyLists, MissingLists, NullEmptyLists, NullLists,
            Poison, ResetAfter, ResetBefore, Shape, Status, SurplusId, UpperCase,
        };
        match (endpoint, self) {
            (Endpoint::Action, _)
            | (Endpoint::BatchItem, Status(_) | DoneThenStatus(_) | ResetBefore | ResetAfter | InNoBucket)
            | (Endpoint::List, NullLists | MissingLists | UpperCase)
            | (Endpoint::LookUp, NullLists | MissingLists) => Ok(()),
            (Endpoint::BatchItem, _) => Err("a request inside a batch has no connection and no time of its own: \
                 a status, done or not, reset-before, reset-after and in-no-bucket can strike it"),
            (
                _,
                InNoBucket | InTwoBuckets | SurplusId | UpperCase | NullLists | MissingLists | NullEmptyLists
                | MissingEmptyLists | Shape(_) | Poison(_),
            ) => Err("this effect alters the action's lists, so it can only strike the action \
                 (null-lists and missing-lists also list and look-up, upper-case also list)"),
            _ => Ok(()),
        }
    }

    /// This status, not done, with the service's own error body.
    pub fn status(code: u16) -> Self {
        Self::Status(StatusFault { code, ..StatusFault::default() })
    }

    /// What Graph is expected to answer when the action is gone.
    pub fn segment_not_found() -> Self {
        Self::Status(StatusFault {
            code: 400,
            error_code: Some("BadRequest".to_owned()),
            message: Some("Resource not found for the segment '{segment}'.".to_owned()),
            ..StatusFault::default()
        })
    }
}

/// One entry of a script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Where it strikes: `action` (the default), `read-back`, `token`, `list`, `batch-item` or `look-up`.
    #[serde(default)]
    pub on: Endpoint,
    /// Only the nth call to that endpoint, counted from 1 since the start.
    #[serde(default)]
    pub nth: Option<u64>,
    /// Only calls that hold this device; also the device that `in_no_bucket` and `in_two_buckets` misplace.
    #[serde(default)]
    pub device: Option<ManagedDeviceId>,
    /// How often; once if not given (without end for `poison`).
    #[serde(default)]
    pub times: Option<Times>,
    /// What goes wrong.
    pub effect: Effect,
}

impl From<Effect> for Fault {
    fn from(effect: Effect) -> Self {
        Self { on: Endpoint::Action, nth: None, device: None, times: None, effect }
    }
}

impl Fault {
    /// Strikes there instead of the action.
    #[must_use]
    pub fn on(mut self, endpoint: Endpoint) -> Self {
        self.on = endpoint;
        self
    }

    /// Strikes only the nth call, counted from 1.
    #[must_use]
    pub fn nth(mut self, nth: u64) -> Self {
        self.nth = Some(nth);
        self
    }

    /// Strikes only calls that hold this device.
    #[must_use]
    pub fn device(mut self, device: ManagedDeviceId) -> Self {
        self.device = Some(device);
        self
    }

    /// Strikes this often.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.times = Some(Times::Count(times));
        self
    }

    /// Strikes without end.
    #[must_use]
    pub fn always(mut self) -> Self {
        self.times = Some(Times::Always);
        self
    }

    /// Why this entry can never do what it says.
    pub(super) fn mistake(&self) -> Option<String> {
        if let Effect::Status(status) | Effect::DoneThenStatus(status) = &self.effect
            && !(200..=599).contains(&status.code)
        {
            return Some(format!("{} is no HTTP status to answer: 200 to 599", status.code));
        }
        if let Err(reason) = self.effect.fits(self.on) {
            return Some(reason.to_owned());
        }
        if matches!(self.on, Endpoint::Token | Endpoint::LookUp) && self.device.is_some() {
            return Some("a request for a token, or for bulk actions, holds no device".to_owned());
        }
        (self.nth == Some(0)).then(|| "calls are counted from 1".to_owned())
    }
}

/// Faults drawn by hash of the seed and the call's number: the same run for the same seed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RandomFaults {
    /// Any number.
    pub seed: u64,
    /// The share of calls struck, 0 to 1.
    pub rate: f64,
}

/// What goes wrong in a run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultScript {
    /// By script.
    #[serde(default)]
    pub script: Vec<Fault>,
    /// By seed, for calls that no entry of the script strikes.
    #[serde(default)]
    pub random: Option<RandomFaults>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_fault_can_be_sent_to_another_process() {
        let status = StatusFault { code: 429, retry_after: RetryAfter::Date(-3), ..StatusFault::default() };
        for fault in [
            Fault::from(Effect::Status(status)).on(Endpoint::ReadBack).always(),
            Fault::from(Effect::Latency(Duration::from_millis(1500))).times(3),
            Fault::from(Effect::segment_not_found()).nth(2),
        ] {
            let sent = serde_json::to_string(&fault).unwrap();
            assert_eq!(serde_json::from_str::<Fault>(&sent).unwrap(), fault, "{sent}");
        }
    }

    #[test]
    fn an_entry_that_could_never_do_what_it_says_is_a_mistake() {
        for fault in [
            Fault::from(Effect::status(99)),
            Fault::from(Effect::InNoBucket).on(Endpoint::ReadBack),
            Fault::from(Effect::UpperCase).on(Endpoint::LookUp),
            Fault::from(Effect::Hang).on(Endpoint::BatchItem),
            Fault::from(Effect::Hang).nth(0),
        ] {
            assert!(fault.mistake().is_some(), "{fault:?}");
        }
        assert!(serde_json::from_str::<Fault>(r#"{"effect": "hang", "nht": 2}"#).is_err());
    }
}
