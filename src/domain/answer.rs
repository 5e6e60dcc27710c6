//! What an answer of Graph means: the table of the protocol as one pure function.
//!
//! The rule behind every row: only what Graph (or the network) *proves* not to have been carried out may be sent
//! again; only what Graph says about a device is that device's bucket; all else is unknown.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::id::ManagedDeviceId;
use super::lifecycle::Bucket;

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
    /// Graph gave lists, be it that they place no device. `devices` runs parallel to what was asked.
    Answered {
        /// For each device asked, in order.
        devices: Vec<DeviceAnswer>,
        /// Items of the lists that were never asked for, as they came.
        surplus: Vec<String>,
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
        /// One word for `tenants.block_code`.
        code: &'static str,
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
    /// In exactly one bucket.
    Bucket(Bucket),
    /// In none, or in several that disagree.
    Unknown(String),
}

/// What `exchange` means for a call that asked for `asked`. `renewed_token`: the token was obtained because the one
/// before it had been refused, so a second refusal is not the token's age. `received_at` is when the answer came.
///
/// Source: Microsoft's reference page of the action, Graph's error and throttling pages, RFC 9110.
pub fn meaning(
    exchange: &Exchange,
    asked: &[ManagedDeviceId],
    renewed_token: bool,
    received_at: DateTime<Utc>,
) -> Meaning {
    let answer = match exchange {
        Exchange::NotSent { reason } => return Meaning::NotSent { reason: reason.clone() },
        Exchange::Lost { reason } => return Meaning::Unknown { reason: reason.clone() },
        Exchange::Answered(answer) => answer,
    };
    let seen = seen(answer);
    match answer.status {
        200..=299 => match &answer.body {
            Body::Buckets(lists) => buckets(lists, asked),
            Body::NoBuckets(why) => Meaning::Unknown { reason: format!("{seen} names no device's bucket: {why}") },
        },
        429 => throttled(answer, seen, received_at),
        // Without Graph's own body a gateway is speaking, and it cannot know whether Graph acted.
        503 | 509 if answer.error.is_some() => throttled(answer, seen, received_at),
        401 if !renewed_token => Meaning::TokenRefused { reason: seen },
        401 => Meaning::Blocked {
            code: "unauthorized",
            reason: format!(
                "{seen}, also with a fresh token: check tenant_id, client_id and cloud of this tenant, and that the application still exists in it"
            ),
        },
        403 => Meaning::Blocked {
            code: "forbidden",
            reason: format!(
                "{seen}: grant the application permission CloudPC.ReadWrite.All (with admin consent) to this client_id, and check that the tenant has Windows 365"
            ),
        },
        404 | 405 | 410 | 501 => gone(&seen),
        // The one place where a message decides: Graph gives a vanished action the code of any bad request, and
        // halving calls until each device fails would blame the devices for it.
        400 if answer.error.as_ref().is_some_and(|e| e.message.contains("for the segment")) => gone(&seen),
        // About what the call holds, or about a device's state: halving finds which.
        400 | 409 | 412 | 413 | 422 | 423 | 424 | 428 => Meaning::Refused { reason: seen },
        300..=499 if !PROVES_NOTHING.contains(&answer.status) => Meaning::Blocked {
            code: "unexpected_answer",
            reason: format!("{seen}, which Graph does not give to this action: check graph_url and any proxy between"),
        },
        _ => Meaning::Unknown { reason: seen },
    }
}

/// Neither success nor proof that nothing was done: 303 shows the result of a POST that was carried out, 406 may be said
/// after the action, when its result is written, 408 and 499 give up at a point that is not said.
const PROVES_NOTHING: [u16; 4] = [303, 406, 408, 499];

fn seen(answer: &HttpAnswer) -> String {
    match &answer.error {
        Some(error) if error.message.is_empty() => format!("HTTP {} {}", answer.status, error.code),
        Some(error) => format!("HTTP {} {}: {}", answer.status, error.code, error.message),
        None => format!("HTTP {}", answer.status),
    }
}

fn gone(seen: &str) -> Meaning {
    Meaning::Blocked {
        code: "action_unavailable",
        reason: format!(
            "{seen}: this tenant does not answer bulkReprovisionCloudPc, which Microsoft has deprecated: choose another action with the setting graph.action, or check graph_url and cloud"
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
            [bucket] => DeviceAnswer::Bucket(*bucket),
            [] => DeviceAnswer::Unknown("the answer has this device in no bucket".to_owned()),
            several => {
                let words: Vec<&str> = several.iter().map(|b| b.as_str()).collect();
                DeviceAnswer::Unknown(format!("the answer has this device in several buckets: {}", words.join(", ")))
            }
        })
        .collect();
    Meaning::Answered { devices, surplus }
}

#[cfg(test)]
mod tests;
