//! What an answer of Graph means: the table of the protocol as one pure function.
//!
//! The rule behind every row: only what Graph (or the network) *proves* not to have been carried out may be sent
//! again; only what Graph says about a device is that device's bucket; all else is unknown.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::action::Action;
use super::id::ManagedDeviceId;
use super::lifecycle::{BlockCode, Bucket};

/// What came of one POST, as the client saw it.
#[derive(Debug, Clone, PartialEq)]
pub enum Exchange {
    /// No byte of the request can have been acted on: no connection, no TLS session, or dropped before the write.
    NotSent {
        /// What stopped it.
        reason: String,
    },
    /// The request was, or may have been, written and no whole answer came.
    Lost {
        /// What was seen instead.
        reason: String,
    },
    /// An answer came.
    Answered(HttpAnswer),
}

/// What was seen of a call's answer, kept for good.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    /// HTTP status, if an answer came.
    pub http_status: Option<u16>,
    /// Graph's `request-id` header.
    pub graph_request_id: Option<String>,
    /// Graph's `Date` header.
    pub graph_date: Option<DateTime<Utc>>,
    /// Graph's error code, or this program's word for what happened to the transport.
    pub error_code: Option<String>,
    /// Graph's error message, or what was seen.
    pub error_message: Option<String>,
    /// The body, up to a bound, without secrets.
    pub response_body: Option<String>,
}

/// An HTTP answer, reduced to what decides.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpAnswer {
    /// HTTP status.
    pub status: u16,
    /// The `Retry-After` header as it stands.
    pub retry_after: Option<String>,
    /// Graph's clock, from the `Date` header.
    pub date: Option<DateTime<Utc>>,
    /// Graph's error object, if the body is one.
    pub error: Option<GraphError>,
    /// What the body holds.
    pub body: Body,
}

/// The body of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// At least one of the four lists.
    Buckets(BucketLists),
    /// The answers of a `$batch`, each with its id as it came: the managed device ID of the inner request.
    Batch(Vec<(String, HttpAnswer)>),
    /// The call was accepted as a whole, and this is what Graph shows of each device asked, in order.
    Accepted(Vec<DeviceAnswer>),
    /// The action was not called: what Graph's list of Cloud PCs says of each device asked, in order.
    Listed(Vec<DeviceAnswer>),
    /// Nothing that names a bucket, and why: empty, not JSON, a list of the wrong type, cut off.
    NoBuckets(String),
}

/// The four lists as they came: each item's text, whatever it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BucketLists {
    /// `successfulDeviceIds`
    pub successful: Vec<String>,
    /// `failedDeviceIds`
    pub failed: Vec<String>,
    /// `notFoundDeviceIds`
    pub not_found: Vec<String>,
    /// `notSupportedDeviceIds`
    pub not_supported: Vec<String>,
}

/// `error.code` and `error.message`. Decisions go by status and code; `message` decides one thing only, see [`meaning`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GraphError {
    /// Graph's code, such as `TooManyRequests`.
    pub code: String,
    /// Graph's sentence.
    pub message: String,
}

/// What an exchange means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    /// Graph said something of devices, be it that it places none. `devices` runs parallel to what was asked.
    Answered {
        /// For each device asked, in order.
        devices: Vec<DeviceAnswer>,
        /// IDs in the answer that were never asked for, as they came.
        surplus: Vec<String>,
        /// What it says beside that.
        beside: Beside,
    },
    /// The whole call may or may not have been carried out.
    Unknown {
        /// What was seen.
        reason: String,
    },
    /// Nothing reached Graph: wait, then again.
    NotSent {
        /// What stopped it.
        reason: String,
    },
    /// Not carried out; the tenant waits.
    Throttled {
        /// Graph's wish, where it is one.
        retry_after: Option<Duration>,
        /// What was seen.
        reason: String,
    },
    /// Not carried out; the token is refused, a fresh one may do.
    TokenRefused {
        /// What was seen.
        reason: String,
    },
    /// Not carried out, and no call of this tenant will be until a person mends it.
    Blocked {
        /// Why, in one word.
        code: BlockCode,
        /// What was seen and what to do.
        reason: String,
    },
    /// Not carried out because of what the call holds.
    Refused {
        /// Graph's word on it.
        reason: String,
    },
}

/// What an answer says of one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceAnswer {
    /// In exactly one bucket; with Graph's reason, where it gives one.
    Bucket(Bucket, Option<String>),
    /// Refused for this device, with Graph's word on it: a repetition would be refused too.
    Refused(String),
    /// Not carried out for this device; one word for `wait_reason`.
    NotCarriedOut(&'static str),
    /// In no bucket, or in several that disagree.
    Unknown(String),
}

/// What an answer says of the call and the tenant, beside its devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beside {
    /// Nothing: the call is answered if it places a device.
    Nothing,
    /// The call was accepted, be it that no device's bucket is known yet.
    Accepted,
    /// Nothing was asked of the action, so that nothing is known of it.
    NotAsked,
    /// Some of it was not carried out, for a reason that holds for the tenant: throttled, refused or blocked.
    Trouble(Box<Meaning>),
}

/// What `exchange` means for a call that asked for `asked`. `renewed_token`: the token was obtained because the one
/// before it had been refused, so a second refusal is not the token's age. `received_at` is when the answer came.
///
/// Source: Microsoft's reference page of the action, Graph's error and throttling pages, RFC 9110.
pub fn meaning(
    exchange: &Exchange,
    action: Action,
    asked: &[ManagedDeviceId],
    renewed_token: bool,
    received_at: DateTime<Utc>,
) -> Meaning {
    let answer = match exchange {
        Exchange::NotSent { reason } => return Meaning::NotSent { reason: reason.clone() },
        Exchange::Lost { reason } => return Meaning::Unknown { reason: reason.clone() },
        Exchange::Answered(answer) => answer,
    };
    let seen = answer.seen();
    match answer.status {
        200..=299 => match &answer.body {
            Body::Buckets(lists) => buckets(lists, asked),
            Body::Batch(answers) => batch(answers, action, asked, renewed_token, received_at),
            Body::Accepted(devices) => each(devices, Beside::Accepted),
            Body::Listed(devices) => each(devices, Beside::NotAsked),
            Body::NoBuckets(why) => Meaning::Unknown { reason: format!("{seen} names no device's bucket: {why}") },
        },
        429 => throttled(answer, seen, received_at),
        // Without Graph's own body a gateway is speaking, and it cannot know whether Graph acted.
        503 | 509 if answer.error.is_some() => throttled(answer, seen, received_at),
        401 if !renewed_token => Meaning::TokenRefused { reason: seen },
        401 => Meaning::Blocked {
            code: BlockCode::Unauthorized,
            reason: format!(
                "{seen}, also with a fresh token: check tenant_id, client_id and cloud of this tenant, and that the application still exists in it"
            ),
        },
        403 => Meaning::Blocked {
            code: BlockCode::Forbidden,
            reason: format!(
                "{seen}: grant the application permission CloudPC.ReadWrite.All (with admin consent) to this client_id, and check that the tenant has Windows 365"
            ),
        },
        404 | 405 | 410 | 501 => gone(&seen, action),
        // The one place where a message decides: Graph gives a vanished action the code of any bad request, and
        // halving calls until each device fails would blame the devices for it.
        400 if no_such_segment(answer) => gone(&seen, action),
        // About what the call holds, or about a device's state: halving finds which.
        400 | 409 | 412 | 413 | 422 | 423 | 424 | 428 => Meaning::Refused { reason: seen },
        300..=499 if !PROVES_NOTHING.contains(&answer.status) => Meaning::Blocked {
            code: BlockCode::UnexpectedAnswer,
            reason: format!("{seen}, which Graph does not give to this action: check graph_url and any proxy between"),
        },
        _ => Meaning::Unknown { reason: seen },
    }
}

/// Neither success nor proof that nothing was done: 303 shows the result of a POST that was carried out, 406 may be said
/// after the action, when its result is written, 408 and 499 give up at a point that is not said.
const PROVES_NOTHING: [u16; 4] = [303, 406, 408, 499];

impl HttpAnswer {
    /// Its status and Graph's own word on it, in one line.
    pub fn seen(&self) -> String {
        match &self.error {
            Some(error) if error.message.is_empty() => format!("HTTP {} {}", self.status, error.code),
            Some(error) => format!("HTTP {} {}: {}", self.status, error.code, error.message),
            None => format!("HTTP {}", self.status),
        }
    }
}

/// Whether Graph says that it does not know the path, whatever the path names.
pub fn no_such_segment(answer: &HttpAnswer) -> bool {
    answer.error.as_ref().is_some_and(|error| error.message.contains("for the segment"))
}

fn gone(seen: &str, action: Action) -> Meaning {
    let deprecated = match action {
        Action::BulkReprovisionCloudPc => ", which Microsoft has deprecated",
        _ => "",
    };
    Meaning::Blocked {
        code: BlockCode::ActionUnavailable,
        reason: format!(
            "{seen}: this tenant does not answer {action}{deprecated}: choose another with the setting graph.action or tenants.NAME.action, or check graph_url and cloud"
        ),
    }
}

fn throttled(answer: &HttpAnswer, seen: String, received_at: DateTime<Utc>) -> Meaning {
    let clock = answer.date.unwrap_or(received_at);
    Meaning::Throttled {
        retry_after: answer.retry_after.as_deref().and_then(|text| retry_after(text, clock)),
        reason: seen,
    }
}

/// How long an answer that is no success asks to be left alone, whatever else it means.
pub fn asks_to_wait(exchange: &Exchange, received_at: DateTime<Utc>) -> Option<Duration> {
    let Exchange::Answered(answer) = exchange else { return None };
    let text = answer.retry_after.as_deref().filter(|_| !(200..300).contains(&answer.status))?;
    retry_after(text, answer.date.unwrap_or(received_at)).filter(|time| !time.is_zero())
}

/// Longer than this is taken for a mistake of whoever wrote the header.
const LONGEST_RETRY_AFTER: Duration = Duration::from_hours(24);

/// A `Retry-After` value as a time to wait from `clock`, the sender's own time. `None` if it is neither seconds nor an
/// HTTP date, lies in the past, or is beyond a day.
pub fn retry_after(text: &str, clock: DateTime<Utc>) -> Option<Duration> {
    let text = text.trim();
    let wait = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        Duration::from_secs(text.parse().ok()?)
    } else {
        let until: DateTime<Utc> = httpdate::parse_http_date(text).ok()?.into();
        (until - clock).to_std().ok()?
    };
    (wait <= LONGEST_RETRY_AFTER).then_some(wait)
}

fn buckets(lists: &BucketLists, asked: &[ManagedDeviceId]) -> Meaning {
    let mut named: BTreeMap<ManagedDeviceId, Vec<Bucket>> = asked.iter().map(|device| (*device, Vec::new())).collect();
    let mut surplus = Vec::new();
    let all = [
        (Bucket::Successful, &lists.successful),
        (Bucket::Failed, &lists.failed),
        (Bucket::NotFound, &lists.not_found),
        (Bucket::NotSupported, &lists.not_supported),
    ];
    for (bucket, items) in all {
        for item in items {
            match item.parse().ok().and_then(|device: ManagedDeviceId| named.get_mut(&device)) {
                Some(found) if found.contains(&bucket) => {}
                Some(found) => found.push(bucket),
                None => surplus.push(item.clone()),
            }
        }
    }
    let devices: Vec<DeviceAnswer> = asked
        .iter()
        .map(|device| match named.get(device).map_or(&[][..], Vec::as_slice) {
            [bucket] => DeviceAnswer::Bucket(*bucket, None),
            [] => DeviceAnswer::Unknown("the answer has this device in no bucket".to_owned()),
            several => {
                let words: Vec<&str> = several.iter().map(|b| b.as_str()).collect();
                DeviceAnswer::Unknown(format!("the answer has this device in several buckets: {}", words.join(", ")))
            }
        })
        .collect();
    Meaning::Answered { devices, surplus, beside: Beside::Nothing }
}

fn each(devices: &[DeviceAnswer], beside: Beside) -> Meaning {
    Meaning::Answered { devices: devices.to_vec(), surplus: Vec::new(), beside }
}

/// A `$batch`: each answer is one device's, and means what it would mean as the answer to a call of that device.
fn batch(
    answers: &[(String, HttpAnswer)],
    action: Action,
    asked: &[ManagedDeviceId],
    renewed_token: bool,
    received_at: DateTime<Utc>,
) -> Meaning {
    let mut said: BTreeMap<ManagedDeviceId, Vec<DeviceAnswer>> = asked.iter().map(|id| (*id, Vec::new())).collect();
    let (mut surplus, mut trouble) = (Vec::new(), None);
    for (id, answer) in answers {
        let Some(found) = id.parse().ok().and_then(|device: ManagedDeviceId| said.get_mut(&device)) else {
            surplus.push(id.clone());
            continue;
        };
        let (device, of_tenant) = inner(answer, action, renewed_token, received_at);
        trouble = worse(trouble, of_tenant);
        if !found.contains(&device) {
            found.push(device);
        }
    }
    let devices = asked.iter().map(|device| match said.get(device).map_or(&[][..], Vec::as_slice) {
        [one] => one.clone(),
        [] => DeviceAnswer::Unknown("the batch has no answer for this device".to_owned()),
        _ => DeviceAnswer::Unknown("the batch has several answers for this device, which disagree".to_owned()),
    });
    let beside = trouble.map_or(Beside::Nothing, |trouble| Beside::Trouble(Box::new(trouble)));
    Meaning::Answered { devices: devices.collect(), surplus, beside }
}

/// One answer of a `$batch`: what it says of its device, and what of the tenant.
fn inner(
    answer: &HttpAnswer,
    action: Action,
    renewed_token: bool,
    received_at: DateTime<Utc>,
) -> (DeviceAnswer, Option<Meaning>) {
    let seen = answer.seen();
    match answer.status {
        200..=299 => return (DeviceAnswer::Bucket(Bucket::Successful, None), None),
        // About the Cloud PC that the path names, where Graph itself says so and does not mean the path as such.
        404 if answer.error.is_some() && !no_such_segment(answer) => {
            return (DeviceAnswer::Bucket(Bucket::NotFound, Some(seen)), None);
        }
        _ => {}
    }
    let alone = HttpAnswer { body: Body::NoBuckets(String::new()), ..answer.clone() };
    match meaning(&Exchange::Answered(alone), action, &[], renewed_token, received_at) {
        Meaning::Refused { reason } if says_not_supported(answer) => {
            (DeviceAnswer::Bucket(Bucket::NotSupported, Some(reason)), None)
        }
        Meaning::Refused { reason } => (DeviceAnswer::Refused(reason), None),
        throttled @ Meaning::Throttled { .. } => (DeviceAnswer::NotCarriedOut("throttled"), Some(throttled)),
        refused @ Meaning::TokenRefused { .. } => (DeviceAnswer::NotCarriedOut("token_refused"), Some(refused)),
        blocked @ Meaning::Blocked { .. } => (DeviceAnswer::NotCarriedOut("blocked"), Some(blocked)),
        Meaning::Answered { .. } | Meaning::Unknown { .. } | Meaning::NotSent { .. } => {
            (DeviceAnswer::Unknown(seen), None)
        }
    }
}

/// Microsoft's page names no error for a Cloud PC that cannot be reprovisioned: Graph's habit is to say so in the code.
fn says_not_supported(answer: &HttpAnswer) -> bool {
    answer.error.as_ref().is_some_and(|error| error.code.to_ascii_lowercase().contains("notsupported"))
}

/// The one that holds longest: a block, then a refused token, then the longest throttling.
fn worse(one: Option<Meaning>, other: Option<Meaning>) -> Option<Meaning> {
    let rank = |meaning: &Meaning| match meaning {
        Meaning::Blocked { .. } => (2, Duration::MAX),
        Meaning::TokenRefused { .. } => (1, Duration::ZERO),
        Meaning::Throttled { retry_after, .. } => (0, retry_after.unwrap_or_default()),
        _ => (0, Duration::ZERO),
    };
    match (one, other) {
        (Some(one), Some(other)) => Some(if rank(&other) > rank(&one) { other } else { one }),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests;
