//! `beta/deviceManagement/virtualEndpoint/bulkActions`: reprovisions many Cloud PCs by one request, and tells later, in
//! counts, what became of them. Which Cloud PC it was that failed, only the read-back says.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::action::{guids, json_object, no_parameter};
use super::answer::{Answer, Call, Content};
use super::faults::{Effect, WrongType};
use super::fleet::{Behaviour, Device};
use super::interface::Interface;
use super::ledger::{Attempt, Pace, Progress};
use super::odata::{List, refuse};
use super::route::Received;
use super::token::{READ, READ_WRITE, authorise};
use super::verdict::Verdict;
use super::{AnswerShape, Shared, action, seeded, unpoisoned};
use crate::domain::id::ManagedDeviceId;

const LIST: List = List {
    path: "deviceManagement/virtualEndpoint/bulkActions",
    type_name: "microsoft.graph.cloudPcBulkAction",
    properties: &[
        "id",
        "actionSummary",
        "cloudPcIds",
        "createdDateTime",
        "displayName",
        "initiatedByUserPrincipalName",
        "scheduledDuringMaintenanceWindow",
        "status",
    ],
    filters: &["displayName", "id"],
    orders: &["createdDateTime", "displayName"],
};

const REPROVISION: &str = "microsoft.graph.cloudPcBulkReprovision";

/// One that was created.
#[derive(Debug)]
pub(super) struct BulkAction {
    id: Uuid,
    display_name: String,
    created: DateTime<Utc>,
    in_maintenance_window: bool,
    /// Each Cloud PC, and how Graph deals with it; one that it does not know fails.
    cloud_pcs: Vec<(Uuid, Behaviour)>,
}

/// How many Cloud PCs have got how far.
#[derive(Debug, Default, Clone, Copy)]
struct Summary {
    successful: usize,
    failed: usize,
    in_progress: usize,
    pending: usize,
    not_supported: usize,
}

/// The IDs in a body, as far as it can be read.
pub(super) fn ids_in(body: &[u8]) -> Vec<String> {
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return Vec::new() };
    let ids = body.get("cloudPcIds").and_then(Value::as_array);
    ids.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Checks the request as Graph does, begins all the reprovisions, and says under which id to ask for them.
pub(super) fn carry_out(sim: &Shared, call: &Call, received: &Received<'_>, verdict: &Verdict) -> Answer {
    let refused = authorise(sim, call, received.authorization, &[READ_WRITE])
        .and_then(|()| Interface::CloudPcBulkAction.refuse_if_gone(sim, call))
        .and_then(|()| action::admit(sim, call));
    if let Err(refusal) = refused {
        return refusal;
    }
    let (display_name, ids, in_maintenance_window) = match requested(received) {
        Ok(requested) => requested,
        Err(message) => return refuse(call, &message),
    };
    if let Some(Effect::Poison(device)) = verdict.effect {
        return refuse(call, &format!("Invalid Cloud PC id of device '{device}'."));
    }
    let victim = (verdict.effect == Some(Effect::InNoBucket)).then(|| victim(sim, verdict, &ids)).flatten();
    let devices: Vec<(Uuid, Option<Device>)> = ids.into_iter().map(|id| (id, sim.fleet.of_cloud_pc(id))).collect();

    let mut state = unpoisoned(&sim.state);
    let (created, mut performed) = (sim.clock.now(), Vec::new());
    for (id, device) in devices.iter().filter_map(|(id, device)| Some((*id, device.as_ref()?))) {
        let attempt = Attempt {
            managed_device_id: device.managed_device_id,
            cloud_pc_id: Some(id),
            at: created,
            hidden: victim == Some(id),
        };
        if matches!(device.behaviour, Behaviour::Succeeds | Behaviour::FailsLater) {
            performed.push(state.ledger.record(attempt, call.client_request_id.clone()));
        } else {
            state.ledger.attempted(attempt);
        }
    }
    let cloud_pcs = devices.into_iter().map(|(id, device)| (id, device.map_or(Behaviour::Fails, |d| d.behaviour)));
    let bulk = BulkAction {
        id: seeded::guid(sim.seed, "bulk action", state.bulk_actions.len() as u64),
        display_name,
        created,
        in_maintenance_window,
        cloud_pcs: cloud_pcs.collect(),
    };
    let told = LIST.entity(sim, received, &super::odata::Options::default(), bulk.entity(sim.pace, created));
    state.bulk_actions.push(bulk);
    Answer { performed, ..tell(sim, told, verdict) }
}

/// Those that the filter lets through, in the order in which they were created.
pub(super) fn list(sim: &Shared, call: &Call, received: &Received<'_>, verdict: &Verdict) -> Answer {
    let refused = authorise(sim, call, received.authorization, &[READ, READ_WRITE])
        .and_then(|()| Interface::CloudPcBulkAction.refuse_if_gone(sim, call));
    if let Err(refusal) = refused {
        return refusal;
    }
    let options = match LIST.options(&received.target.query) {
        Ok(options) => options,
        Err(message) => return refuse(call, &message),
    };
    let state = unpoisoned(&sim.state);
    let chosen = state.bulk_actions.iter().filter(|bulk| match &options.filter {
        Some(("id", id)) => id.eq_ignore_ascii_case(&bulk.id.to_string()),
        Some((_, name)) => *name == bulk.display_name,
        None => true,
    });
    let items = chosen.map(|bulk| bulk.entity(sim.pace, call.at)).collect();
    drop(state);
    LIST.page(sim, received, &options, items, verdict)
}

/// The one that the path names.
pub(super) fn one(sim: &Shared, call: &Call, received: &Received<'_>, id: &str) -> Answer {
    let refused = authorise(sim, call, received.authorization, &[READ, READ_WRITE])
        .and_then(|()| Interface::CloudPcBulkAction.refuse_if_gone(sim, call));
    if let Err(refusal) = refused {
        return refusal;
    }
    let options = match LIST.options(&received.target.query) {
        Ok(options) => options,
        Err(message) => return refuse(call, &message),
    };
    let state = unpoisoned(&sim.state);
    match state.bulk_actions.iter().find(|bulk| id.eq_ignore_ascii_case(&bulk.id.to_string())) {
        Some(bulk) => Answer::json(200, LIST.entity(sim, received, &options, bulk.entity(sim.pace, call.at))),
        None => {
            Answer::graph_error(call, 404, "ResourceNotFound", &format!("Bulk action with id '{id}' was not found."))
        }
    }
}

fn requested(received: &Received<'_>) -> Result<(String, Vec<Uuid>, bool), String> {
    let body = json_object(received)?;
    let kind = body.get("@odata.type").and_then(Value::as_str).unwrap_or_default();
    if kind.trim_start_matches('#') != REPROVISION {
        return Err(format!("The type '{kind}' is no bulk action that is known here: #{REPROVISION}."));
    }
    let known = ["displayName", "cloudPcIds", "scheduledDuringMaintenanceWindow"];
    if let Some(unknown) = body.keys().find(|key| !known.contains(&key.as_str()) && !key.contains('@')) {
        return Err(no_parameter(unknown, "cloudPcBulkReprovision"));
    }
    let display_name = body.get("displayName").and_then(Value::as_str).filter(|name| !name.trim().is_empty());
    let display_name = display_name.ok_or("The property 'displayName' is required: a string that is not empty.")?;
    let in_window = match body.get("scheduledDuringMaintenanceWindow") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(in_window)) => *in_window,
        Some(_) => return Err("The property 'scheduledDuringMaintenanceWindow' is not a boolean.".to_owned()),
    };
    Ok((display_name.to_owned(), guids(&body, "cloudPcIds", "Cloud PC")?, in_window))
}

/// The Cloud PC that a fault is about: that of the device it names, else the first.
fn victim(sim: &Shared, verdict: &Verdict, ids: &[Uuid]) -> Option<Uuid> {
    let Some(device) = verdict.device.map(ManagedDeviceId::as_uuid) else { return ids.first().copied() };
    let of = |id: Uuid| sim.fleet.of_cloud_pc(id).map(|found| found.managed_device_id.as_uuid());
    ids.iter().copied().find(|&id| id == device || of(id) == Some(device))
}

/// The created bulk action, or what a fault makes of it.
fn tell(sim: &Shared, mut told: Value, verdict: &Verdict) -> Answer {
    let nothing = |status| Answer { content: Content::Nothing, ..Answer::json(status, Value::Null) };
    let summary = told["actionSummary"].clone();
    let counts = summary.as_object().cloned().unwrap_or_default();
    let not_zero = |(_, count): &(String, Value)| *count != json!(0);
    match verdict.effect {
        Some(Effect::Shape(AnswerShape::Empty)) => return nothing(204),
        Some(Effect::NullLists) => told["actionSummary"] = Value::Null,
        Some(Effect::MissingLists) => drop(told.as_object_mut().and_then(|told| told.remove("actionSummary"))),
        Some(Effect::NullEmptyLists) => {
            let counts = counts.into_iter().map(|(name, n)| (name, if n == json!(0) { Value::Null } else { n }));
            told["actionSummary"] = Value::Object(counts.collect());
        }
        Some(Effect::MissingEmptyLists) => {
            told["actionSummary"] = Value::Object(counts.into_iter().filter(not_zero).collect());
        }
        Some(Effect::WrongType(WrongType::String)) => told["actionSummary"] = json!(summary.to_string()),
        Some(Effect::WrongType(WrongType::Number)) => told["actionSummary"] = json!(counts.len()),
        Some(Effect::SurplusId) => {
            if let Some(ids) = told["cloudPcIds"].as_array_mut() {
                ids.push(json!(seeded::guid(sim.seed, "never asked for", ids.len() as u64)));
            }
        }
        Some(Effect::UpperCase) => {
            told["id"] = in_capitals(&told["id"]);
            told["cloudPcIds"] = told["cloudPcIds"].as_array().into_iter().flatten().map(in_capitals).collect();
        }
        _ => {}
    }
    Answer::json(201, told)
}

fn in_capitals(id: &Value) -> Value {
    json!(id.as_str().unwrap_or_default().to_uppercase())
}

impl BulkAction {
    fn summary(&self, pace: Pace, now: DateTime<Utc>) -> Summary {
        let mut summary = Summary::default();
        let progress = pace.reached(self.created, now);
        for (_, behaviour) in &self.cloud_pcs {
            let count = match (progress, behaviour) {
                (Progress::Pending { .. }, _) => &mut summary.pending,
                (_, Behaviour::NotSupported) => &mut summary.not_supported,
                (_, Behaviour::Fails | Behaviour::NotFound) | (Progress::Ended { .. }, Behaviour::FailsLater) => {
                    &mut summary.failed
                }
                (Progress::Active { .. }, _) => &mut summary.in_progress,
                (Progress::Ended { .. }, Behaviour::Succeeds) => &mut summary.successful,
            };
            *count += 1;
        }
        summary
    }

    fn entity(&self, pace: Pace, now: DateTime<Utc>) -> Map<String, Value> {
        let summary = self.summary(pace, now);
        let status = match summary {
            Summary { pending: 0, in_progress: 0, failed: 0, .. } => "succeeded",
            Summary { pending: 0, in_progress: 0, .. } => "failed",
            _ => "pending",
        };
        let ids: Vec<Uuid> = self.cloud_pcs.iter().map(|(id, _)| *id).collect();
        let entity = json!({
            "@odata.type": format!("#{REPROVISION}"),
            "id": self.id,
            "displayName": self.display_name,
            "cloudPcIds": ids,
            "createdDateTime": self.created.to_rfc3339_opts(SecondsFormat::Millis, true),
            "scheduledDuringMaintenanceWindow": self.in_maintenance_window,
            // An app is no user.
            "initiatedByUserPrincipalName": null,
            "status": status,
            "actionSummary": {
                "successfulCount": summary.successful,
                "failedCount": summary.failed,
                "inProgressCount": summary.in_progress,
                "pendingCount": summary.pending,
                "notSupportedCount": summary.not_supported,
            },
        });
        let Value::Object(entity) = entity else { return Map::new() };
        entity
    }
}
