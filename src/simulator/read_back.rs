//! What became of a device's remote actions, by its managed device ID or by its Cloud PC's:
//! `GET /beta/deviceManagement/managedDevices/{id}/getCloudPcRemoteActionResults` and its successor
//! `GET /beta/deviceManagement/virtualEndpoint/cloudPCs/{id}/retrieveCloudPcRemoteActionResults`.

use chrono::{DateTime, Timelike, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use super::answer::{Answer, Call};
use super::fleet::{Behaviour, Device};
use super::ledger::{Attempt, Progress};
use super::route::{Received, guid};
use super::token::{READ, READ_WRITE, authorise};
use super::{Shared, State, cloud_pcs, unpoisoned};
use crate::domain::id::ManagedDeviceId;

/// Answers for the device that the path names.
pub(super) fn of_device(sim: &Shared, call: &Call, received: &Received<'_>, segment: &str) -> Answer {
    if let Err(refusal) = authorise(sim, call, received.authorization, &[READ, READ_WRITE]) {
        return refusal;
    }
    let Some(id) = guid(segment) else {
        let message = format!("Invalid managed device id '{segment}': not a GUID.");
        return Answer::graph_error(call, 400, "BadRequest", &message);
    };
    let device = ManagedDeviceId::try_from(id).ok().map(|id| sim.fleet.look_up(id));
    let Some(device) = device.filter(|device| device.behaviour != Behaviour::NotFound) else {
        let message = format!("Managed device with id '{id}' was not found.");
        return Answer::graph_error(call, 404, "ResourceNotFound", &message);
    };
    let state = unpoisoned(&sim.state);
    let known = Some(device.managed_device_id.as_uuid());
    tell(sim, call, &device, known, state.ledger.of_device(device.managed_device_id))
}

/// Answers for the Cloud PC that the path names.
pub(super) fn of_cloud_pc(sim: &Shared, call: &Call, received: &Received<'_>, segment: &str) -> Answer {
    if let Err(refusal) = authorise(sim, call, received.authorization, &[READ, READ_WRITE]) {
        return refusal;
    }
    let (id, device) = match cloud_pcs::find(sim, call, segment) {
        Ok(found) => found,
        Err(refusal) => return refusal,
    };
    let state: &State = &unpoisoned(&sim.state);
    let enrolled = cloud_pcs::enrolled_as(sim, state, id, &device, call.at);
    tell(sim, call, &device, enrolled, state.ledger.of_cloud_pc(id))
}

fn tell<'a>(
    sim: &Shared,
    call: &Call,
    device: &Device,
    managed_device_id: Option<Uuid>,
    attempts: impl Iterator<Item = &'a Attempt>,
) -> Answer {
    let shown = attempts.filter(|attempt| !attempt.hidden).filter_map(|attempt| {
        let progress = sim.pace.progress(attempt.at, call.at)?;
        Some(remote_action(device.behaviour, managed_device_id, attempt, progress))
    });
    let context = format!("{}/beta/$metadata#Collection(microsoft.graph.cloudPcRemoteActionResult)", sim.base_url);
    Answer::json(200, json!({"@odata.context": context, "value": shown.collect::<Vec<_>>()}))
}

fn remote_action(behaviour: Behaviour, device: Option<Uuid>, attempt: &Attempt, progress: Progress) -> Value {
    // What is refused is refused as soon as it is looked at.
    let refused = match behaviour {
        Behaviour::Fails => Some("failed"),
        Behaviour::NotSupported => Some("notSupported"),
        Behaviour::Succeeds | Behaviour::FailsLater | Behaviour::NotFound => None,
    };
    let ended = if behaviour == Behaviour::FailsLater { "failed" } else { "done" };
    let (state, updated) = match (progress, refused) {
        (Progress::Pending { since }, _) => ("pending", since),
        (Progress::Active { since } | Progress::Ended { at: since }, Some(refused)) => (refused, since),
        (Progress::Active { since }, None) => ("active", since),
        (Progress::Ended { at }, None) => (ended, at),
    };
    let details = (state == "failed").then(|| {
        json!({
            "@odata.type": "microsoft.graph.cloudPcStatusDetails",
            "code": "internalServerError",
            "message": "The Cloud PC could not be provisioned.",
            "additionalInformation": [],
        })
    });
    json!({
        "@odata.type": "#microsoft.graph.cloudPcRemoteActionResult",
        "actionName": "Reprovision",
        "actionState": state,
        "startDateTime": seven_digits(attempt.at),
        "lastUpdatedDateTime": seven_digits(updated),
        "cloudPcId": attempt.cloud_pc_id,
        "managedDeviceId": device,
        "statusDetail": details,
        "statusDetails": details,
    })
}

/// Graph counts in ticks of 100 ns, which chrono has no format for.
fn seven_digits(at: DateTime<Utc>) -> String {
    format!("{}.{:07}Z", at.format("%Y-%m-%dT%H:%M:%S"), at.nanosecond() % 1_000_000_000 / 100)
}
