//! An answer that comes after its call was given up and the doubt about a device was settled in another way. What was
//! settled stands; what the answer says about it is kept beside it, and whether the two agree.

use crate::domain::id::RequestId;
use crate::domain::lifecycle::{Bucket, EntryEffect, Source};

use super::rows::{json, storable};

/// The last word about one request of the call, before the answer came.
#[derive(Debug)]
pub(super) struct SettledBefore {
    pub(super) request: i64,
    pub(super) device: String,
    pub(super) attempt: i32,
    /// `Unknown`: it was queued again.
    pub(super) bucket: Bucket,
    pub(super) source: Source,
}

/// Reads a row of `SETTLED_BEFORE` from either database.
macro_rules! settled_before {
    ($row:expr) => {{
        let request: i64 = $row.try_get("request_id")?;
        crate::store::late::SettledBefore {
            request,
            device: $row.try_get("managed_device_id")?,
            attempt: $row.try_get("attempt")?,
            bucket: crate::store::rows::word($row.try_get("bucket")?, "bucket", request)?,
            source: crate::store::rows::word($row.try_get("source")?, "source", request)?,
        }
    }};
}
pub(super) use settled_before;

/// Columns of `device_results` rows that are never final.
#[derive(Debug, Default)]
pub(super) struct LateResults {
    pub(super) request_id: Vec<i64>,
    pub(super) device: Vec<String>,
    pub(super) attempt: Vec<i32>,
    pub(super) bucket: Vec<&'static str>,
    pub(super) detail: Vec<String>,
}

impl LateResults {
    /// What the answer says of the requests that `settled` names.
    pub(super) fn of(entries: &[(RequestId, EntryEffect)], settled: Vec<SettledBefore>) -> Self {
        let mut rows = Self::default();
        for before in settled {
            let effect = entries.iter().find(|(request, _)| request.0 == before.request).map(|(_, effect)| effect);
            let Some((bucket, said)) = effect.and_then(said) else { continue };
            let detail = format!("{said}came after the request had been {}", compared(bucket, &before));
            rows.request_id.push(before.request);
            rows.device.push(before.device);
            rows.attempt.push(before.attempt);
            rows.bucket.push(bucket.as_str());
            rows.detail.push(storable(&detail));
        }
        rows
    }

    /// As JSON rows, for `json_each`.
    pub(super) fn json(&self) -> String {
        let row = |n: usize| (self.request_id[n], &self.device[n], self.attempt[n], self.bucket[n], &self.detail[n]);
        json((0..self.request_id.len()).map(row))
    }
}

/// What an answer says of one device, if it says anything.
fn said(effect: &EntryEffect) -> Option<(Bucket, String)> {
    let and = |detail: &Option<String>| detail.as_ref().map_or_else(String::new, |detail| format!("{detail}; "));
    match effect {
        EntryEffect::Final { bucket, detail, .. } => Some((*bucket, and(detail))),
        EntryEffect::TryAgain { detail, .. } => Some((Bucket::Failed, and(detail))),
        EntryEffect::Requeue { reason, .. } => Some((Bucket::Unknown, format!("it was not carried out ({reason}); "))),
        EntryEffect::Unknown { .. } => None,
    }
}

/// The two agree if both say that the device was reprovisioned, or both that it was not.
fn compared(answer: Bucket, before: &SettledBefore) -> String {
    let agree = (answer == Bucket::Successful) == (before.bucket == Bucket::Successful);
    let settled = match before.bucket {
        Bucket::Unknown => "queued again".to_owned(),
        bucket => format!("settled as {bucket}"),
    };
    format!("{settled} by {}: {}", before.source, if agree { "agrees" } else { "contradicts" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_answer_agrees_where_both_say_that_the_device_was_reprovisioned_or_both_that_it_was_not() {
        let ends = |bucket| EntryEffect::Final { bucket, source: Source::Answer, detail: None };
        let refused = EntryEffect::Requeue { reason: "throttled", max_batch: None };
        let doubt = EntryEffect::Unknown { detail: "reset".to_owned() };
        for (effect, settled, source, expected) in [
            (
                ends(Bucket::Successful),
                Bucket::Successful,
                Source::ReadBack,
                "settled as successful by read_back: agrees",
            ),
            (
                ends(Bucket::NotFound),
                Bucket::Successful,
                Source::Operator,
                "settled as successful by operator: contradicts",
            ),
            (ends(Bucket::Successful), Bucket::Unknown, Source::ReadBack, "queued again by read_back: contradicts"),
            (ends(Bucket::NotFound), Bucket::Failed, Source::Operator, "settled as failed by operator: agrees"),
            (refused.clone(), Bucket::Unknown, Source::Operator, "queued again by operator: agrees"),
            (refused, Bucket::Successful, Source::ReadBack, "settled as successful by read_back: contradicts"),
            (doubt, Bucket::Successful, Source::ReadBack, ""),
        ] {
            let before = SettledBefore { request: 7, device: String::new(), attempt: 1, bucket: settled, source };
            let rows = LateResults::of(&[(RequestId(7), effect)], vec![before]);
            assert_eq!(rows.detail.is_empty(), expected.is_empty());
            assert!(rows.detail.iter().all(|detail| detail.ends_with(expected)), "{:?}", rows.detail);
        }
    }
}
