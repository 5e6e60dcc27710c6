//! `POST /beta/…/bulkActions` with a `cloudPcBulkReprovision`: accepted as a whole, carried out afterwards. What became of each
//! device is asked until Graph has taken all of them up; and a lost answer is looked up by the name that the action carries.
//!
//! Source: the reference pages "Create cloudPcBulkAction" and "cloudPcBulkActionSummary" (beta), and Microsoft's SDK: the
//! summary has counts only.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use url::Url;

use super::caller::{Answer, Caller, Unread};
use super::read_back;
use crate::clock::BootInstant;
use crate::domain::answer::{Body, DeviceAnswer, Evidence};
use crate::domain::id::{CallId, CloudPcId, ManagedDeviceId};
use crate::domain::lifecycle::Bucket;
use crate::domain::printable::printable;
use crate::domain::read_back::{Found, ReadBack, RemoteAction, Subject};

pub(super) const PATH: &str = "/beta/deviceManagement/virtualEndpoint/bulkActions";

/// Characters of a word of Graph's that are kept.
const KEPT_CHARS: usize = 100;

/// The first wait before an accepted action is looked at, and the longest.
const FIRST_LOOK: Duration = Duration::from_millis(500);
const LONGEST_LOOK: Duration = Duration::from_secs(10);

/// Read-backs under way at once.
const READS_AT_ONCE: usize = 4;

/// A remote action may have begun this much before the bulk action that it belongs to, by Graph's clocks.
const GRAPHS_CLOCKS_APART: TimeDelta = TimeDelta::seconds(60);

/// The name by which a call's action can be found again. `displayName` is ours to choose.
fn display_name(call: CallId) -> String {
    format!("reprovisiond {call}")
}

pub(super) fn request_body(call: CallId, targets: &[(ManagedDeviceId, CloudPcId)]) -> Vec<u8> {
    let cloud_pcs: Vec<CloudPcId> = targets.iter().map(|(_, cloud_pc)| *cloud_pc).collect();
    serde_json::json!({
        "@odata.type": "#microsoft.graph.cloudPcBulkReprovision",
        "displayName": display_name(call),
        "cloudPcIds": cloud_pcs,
    })
    .to_string()
    .into_bytes()
}

/// A bulk action as Graph shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct BulkAction {
    id: String,
    status: String,
    created_at: Option<DateTime<Utc>>,
    /// `None`: Graph does not say, or not in numbers.
    summary: Option<Summary>,
    /// How many Cloud PCs it is about, where Graph repeats them.
    cloud_pcs: Option<u64>,
}

/// `actionSummary`, as far as it tells the buckets apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Summary {
    pending: u64,
    failed: u64,
    not_supported: u64,
    /// Those, and those that run or have succeeded.
    all: u64,
}

impl Summary {
    /// Whether it says of each of so many Cloud PCs that it has been taken up. One that counts fewer is not counted out yet: all
    /// zeros say nothing, and least of all that nothing failed.
    fn is_whole(self, cloud_pcs: u64) -> bool {
        self.pending == 0 && self.all >= cloud_pcs.max(1)
    }
}

impl BulkAction {
    fn read(value: &Value) -> Option<Self> {
        let field = |name: &str| value.get(name).and_then(Value::as_str);
        let summary = value.get("actionSummary");
        let count = |name: &str| summary.and_then(|summary| summary.get(name)).and_then(Value::as_u64);
        let summarised = || {
            let (pending, failed, not_supported) =
                (count("pendingCount")?, count("failedCount")?, count("notSupportedCount")?);
            let others = [count("inProgressCount")?, count("successfulCount")?];
            let all = [pending, failed, not_supported].into_iter().chain(others).fold(0, u64::saturating_add);
            Some(Summary { pending, failed, not_supported, all })
        };
        Some(Self {
            id: printable(field("id").filter(|id| !id.is_empty())?, KEPT_CHARS).to_string(),
            status: printable(field("status").unwrap_or("of unknown status"), KEPT_CHARS).to_string(),
            created_at: field("createdDateTime").and_then(|at| DateTime::parse_from_rfc3339(at).ok()).map(Into::into),
            summary: summarised(),
            cloud_pcs: value.get("cloudPcIds").and_then(Value::as_array).map(|ids| ids.len() as u64),
        })
    }

    fn pending(&self) -> String {
        format!(
            "Graph took it as bulk action {}, which is {} and does not say yet what became of it",
            self.id, self.status
        )
    }
}

/// What became of the devices of an accepted action, and the evidence: asked until it is known, or until `within` is over.
pub(super) async fn follow(
    caller: &Caller,
    accepted: &Answer,
    targets: &[(ManagedDeviceId, CloudPcId)],
    within: Duration,
) -> (Body, Evidence) {
    let mut evidence = accepted.evidence();
    let read = accepted.whole().and_then(|body| {
        let value = serde_json::from_slice(body).ok();
        value.as_ref().and_then(BulkAction::read).ok_or_else(|| "the body is no bulk action".to_owned())
    });
    let mut action = match read {
        Ok(action) => action,
        Err(why) => return (Body::NoBuckets(why), evidence),
    };
    let began = BootInstant::now();
    let mut pause = FIRST_LOOK;
    let expected = targets.len() as u64;
    while !action.summary.is_some_and(|summary| summary.is_whole(expected)) {
        let left = within.saturating_sub(began.elapsed());
        if left <= pause {
            break;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_LOOK);
        // What cannot be looked at now may be later: it is accepted in any case.
        let left = within.saturating_sub(began.elapsed());
        if let Ok(Ok((newer, body))) = tokio::time::timeout(left, look_at(caller, &action.id)).await {
            action = newer;
            evidence.response_body = Some(body);
        }
    }
    let left = within.saturating_sub(began.elapsed());
    let devices = match tokio::time::timeout(left, outcomes(caller, &action, expected, targets)).await {
        Ok(devices) => devices,
        Err(_) => vec![DeviceAnswer::Unknown(action.pending()); targets.len()],
    };
    (Body::Accepted(devices), evidence)
}

async fn look_at(caller: &Caller, id: &str) -> Result<(BulkAction, String), Unread> {
    let mut url = caller.url(PATH).map_err(|error| Unread { reason: error.to_string(), answer: None })?;
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.push(id);
    }
    let answer = caller.get(url).await?;
    let value = answer.whole().ok().and_then(|body| serde_json::from_slice::<Value>(body).ok());
    let action = value.as_ref().and_then(BulkAction::read).filter(|action| action.id == id);
    let action = action.ok_or_else(|| answer.unreadable("the body is no bulk action"))?;
    Ok((action, answer.evidence().response_body.unwrap_or_default()))
}

/// Device by device. Where the summary counts none that failed, all are accepted; else each is asked, until as many as it counts
/// are found.
async fn outcomes(
    caller: &Caller,
    action: &BulkAction,
    expected: u64,
    targets: &[(ManagedDeviceId, CloudPcId)],
) -> Vec<DeviceAnswer> {
    let Some(summary) = action.summary.filter(|summary| summary.is_whole(expected)) else {
        return vec![DeviceAnswer::Unknown(action.pending()); targets.len()];
    };
    let mut missing = summary.failed.saturating_add(summary.not_supported);
    let mut devices = Vec::with_capacity(targets.len());
    for some in targets.chunks(READS_AT_ONCE) {
        if missing == 0 {
            devices.extend(some.iter().map(|_| DeviceAnswer::Bucket(Bucket::Successful, None)));
            continue;
        }
        let reads = some.iter().map(|(_, cloud_pc)| read_back::remote_actions(caller, *cloud_pc));
        for read in futures_util::future::join_all(reads).await {
            let said = outcome(action, &read);
            if matches!(said, DeviceAnswer::Bucket(Bucket::Failed | Bucket::NotSupported, _)) {
                missing = missing.saturating_sub(1);
            }
            devices.push(said);
        }
    }
    devices
}

/// What a Cloud PC's remote actions say of its part in a bulk action.
fn outcome(action: &BulkAction, read: &ReadBack) -> DeviceAnswer {
    let seen = match read {
        ReadBack::Seen(seen) => seen,
        ReadBack::Failed { reason, .. } => {
            return DeviceAnswer::Unknown(format!(
                "Graph took it as bulk action {}, some of which failed, and which cannot be read: {reason}",
                action.id
            ));
        }
        ReadBack::Found(_) => return DeviceAnswer::Unknown(action.pending()),
    };
    let Some(created_at) = action.created_at else { return DeviceAnswer::Unknown(action.pending()) };
    let since = created_at - GRAPHS_CLOCKS_APART;
    let ours = |remote: &&RemoteAction| remote.is_reprovision() && remote.started_at.is_some_and(|at| at >= since);
    let Some(remote) = seen.actions.iter().filter(ours).max_by_key(|remote| remote.started_at) else {
        return DeviceAnswer::Unknown(format!(
            "Graph took it as bulk action {}, and the device's remote actions do not show it yet",
            action.id
        ));
    };
    let detail = remote.status_detail.as_deref().map(|detail| format!(": {}", printable(detail, 500)));
    let detail =
        format!("bulk action {}, {}{}", action.id, printable(&remote.state, KEPT_CHARS), detail.unwrap_or_default());
    match remote.state.to_ascii_lowercase().as_str() {
        "failed" | "canceled" => DeviceAnswer::Bucket(Bucket::Failed, Some(detail)),
        "notsupported" => DeviceAnswer::Bucket(Bucket::NotSupported, Some(detail)),
        "pending" | "active" | "done" => DeviceAnswer::Bucket(Bucket::Successful, None),
        _ => DeviceAnswer::Unknown(detail),
    }
}

/// Looks a call's action up by its name, and what Graph says of one device in it; without it, the Cloud PC's remote actions.
pub(super) async fn look_up(caller: &Caller, subject: &Subject, cloud_pc: CloudPcId) -> ReadBack {
    let filter = format!("displayName eq '{}'", display_name(subject.call_id));
    let url = caller.url(PATH).and_then(|url| Url::parse_with_params(url.as_str(), [("$filter", filter)]));
    let answer = match url {
        Ok(url) => caller.get(url).await,
        Err(error) => Err(Unread { reason: error.to_string(), answer: None }),
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(unread) => return read_back::failed(unread),
    };
    let list = match listed(&answer, subject.call_id) {
        Ok(list) => list,
        Err(why) => return read_back::failed(answer.unreadable(why)),
    };
    // That Graph does not list it may mean that it has forgotten it: what the Cloud PC has been through decides.
    let Some(action) = list.into_iter().next() else { return read_back::remote_actions(caller, cloud_pc).await };
    let devices = outcomes(caller, &action, action.cloud_pcs.unwrap_or(1), &[(subject.device, cloud_pc)]).await;
    let device = devices.into_iter().next().unwrap_or_else(|| DeviceAnswer::Unknown(action.pending()));
    let BulkAction { id, status, created_at, .. } = action;
    let (read_at, graph_request_id) = (answer.date, answer.request_id);
    ReadBack::Found(Found { id, status, created_at, device, read_at, graph_request_id })
}

/// The actions of that name. Whoever knows no `$filter` lists others too; what goes on on a further page proves no absence.
fn listed(answer: &Answer, call: CallId) -> Result<Vec<BulkAction>, &'static str> {
    const NO_LIST: &str = "the body is no list of bulk actions";
    let body: Value = answer.whole().ok().and_then(|body| serde_json::from_slice(body).ok()).ok_or(NO_LIST)?;
    let list = body.get("value").and_then(Value::as_array).ok_or(NO_LIST)?;
    let name = display_name(call);
    let ours = list.iter().filter(|entry| {
        entry.get("displayName").and_then(Value::as_str).is_some_and(|text| text.eq_ignore_ascii_case(&name))
    });
    let found = ours.map(|entry| BulkAction::read(entry).ok_or(NO_LIST)).collect::<Result<Vec<_>, _>>()?;
    match body.get("@odata.nextLink") {
        Some(next) if !next.is_null() && found.is_empty() => Err("the list of bulk actions goes on on a further page"),
        _ => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::read_back::Seen;

    fn action(body: &str) -> Option<BulkAction> {
        BulkAction::read(&serde_json::from_str(body).unwrap())
    }

    #[test]
    fn a_bulk_action_is_read_with_a_summary_only_if_all_its_counts_are_numbers() {
        let whole = r#"{"id":"b","status":"pending","createdDateTime":"2026-11-24T10:00:00.1234567Z","actionSummary":
            {"successfulCount":1,"failedCount":2,"inProgressCount":3,"pendingCount":4,"notSupportedCount":5}}"#;
        let read = action(whole).unwrap();
        assert_eq!(read.summary, Some(Summary { pending: 4, failed: 2, not_supported: 5, all: 15 }));
        assert!(read.created_at.is_some());
        for name in ["successfulCount", "failedCount", "inProgressCount", "pendingCount", "notSupportedCount"] {
            assert_eq!(action(&whole.replace(name, "x")).unwrap().summary, None, "{name}");
        }
        assert_eq!(action(&whole.replace(":4", r#":"4""#)).unwrap().summary, None);
        assert_eq!(action(r#"{"id":"b","actionSummary":null}"#).unwrap().summary, None);
        for without_id in ["{}", r#"{"id":""}"#, r#"{"id":7}"#, "[]"] {
            assert_eq!(action(without_id), None, "{without_id}");
        }
    }

    #[test]
    fn a_summary_that_does_not_count_every_cloud_pc_says_nothing_yet() {
        let summary = |pending, all| Summary { pending, failed: 0, not_supported: 0, all };
        assert!(summary(0, 3).is_whole(3));
        assert!(!summary(0, 2).is_whole(3) && !summary(1, 3).is_whole(3));
        assert!(!summary(0, 0).is_whole(3) && !summary(0, 0).is_whole(0), "zeros are no news");
    }

    #[test]
    fn a_device_of_a_bulk_action_is_in_the_bucket_that_its_newest_reprovision_since_then_shows() {
        let bulk = action(r#"{"id":"b","createdDateTime":"2026-11-24T10:00:00Z"}"#).unwrap();
        let created = bulk.created_at.unwrap();
        let remote = |state: &str, seconds| RemoteAction {
            name: "Reprovision".to_owned(),
            state: state.to_owned(),
            started_at: Some(created + TimeDelta::seconds(seconds)),
            updated_at: None,
            status_detail: Some("why".to_owned()),
        };
        let said = |actions: &[RemoteAction]| match outcome(
            &bulk,
            &ReadBack::Seen(Seen { actions: actions.to_vec(), ..Seen::default() }),
        ) {
            DeviceAnswer::Bucket(bucket, _) => bucket.as_str(),
            _ => "unknown",
        };
        assert_eq!(said(&[remote("failed", 1)]), "failed");
        assert_eq!(said(&[remote("NotSupported", 1)]), "not_supported");
        assert_eq!(said(&[remote("failed", -3600), remote("active", 1)]), "successful");
        assert_eq!(said(&[remote("failed", -3600)]), "unknown", "that was another one");
        assert_eq!(said(&[remote("of unknown state", 1)]), "unknown");
        let restarted = RemoteAction { name: "Restart".to_owned(), ..remote("failed", 1) };
        assert_eq!(said(&[restarted]), "unknown");
        assert_eq!(said(&[]), "unknown");
    }
}
