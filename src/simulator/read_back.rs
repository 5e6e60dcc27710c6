//! `GET /beta/deviceManagement/managedDevices/{id}/getCloudPcRemoteActionResults`: a device's remote actions, with the
//! state that each has reached by now.

use chrono::{DateTime, Timelike, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use super::answer::{Answer, Call};
use super::fleet::{Behaviour, Device};
use super::http::Received;
use super::ledger::Progress;
use super::token::{READ, READ_WRITE, authorise};
use super::{Shared, unpoisoned};
use crate::domain::id::ManagedDeviceId;

/// Answers for the device that the path names.
pub(super) fn read(sim: &Shared, call: &Call, received: &Received<'_>, segment: &str) -> Answer {
    if let Err(refusal) = authorise(sim, call, received.authorization, &[READ, READ_WRITE]) {
        return refusal;
    }
    let Some(id) = Some(segment).filter(|text| text.len() == 36).and_then(|text| Uuid::try_parse(text).ok()) else {
        let message = format!("Invalid managed device id '{segment}': not a GUID.");
        return Answer::graph_error(call, 400, "BadRequest", &message);
    };
    let device = ManagedDeviceId::try_from(id).ok().map(|id| sim.fleet.look_up(id));
    let Some(device) = device.filter(|device| device.behaviour != Behaviour::NotFound) else {
        let message = format!("Managed device with id '{id}' was not found.");
        return Answer::graph_error(call, 404, "ResourceNotFound", &message);
    };
    let state = unpoisoned(&sim.state);
    let actions: Vec<Value> = state
        .ledger
        .of_device(device.managed_device_id)
        .filter_map(|entry| {
            let progress = sim.pace.progress(entry.at, call.at)?;
            Some(remote_action(&device, entry.at, progress))
        })
        .collect();
    let context = format!("{}/beta/$metadata#Collection(microsoft.graph.cloudPcRemoteActionResult)", sim.base_url);
    Answer::json(200, json!({"@odata.context": context, "value": actions}))
}

fn remote_action(device: &Device, started: DateTime<Utc>, progress: Progress) -> Value {
    let failed = device.behaviour == Behaviour::FailsLater;
    let (state, updated) = match progress {
        Progress::Pending => ("pending", started),
        Progress::Active { since } => ("active", since),
        Progress::Ended { at } => (if failed { "failed" } else { "done" }, at),
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
        "startDateTime": seven_digits(started),
        "lastUpdatedDateTime": seven_digits(updated),
        "cloudPcId": device.cloud_pc_id,
        "managedDeviceId": device.managed_device_id,
        "statusDetail": details,
        "statusDetails": details,
    })
}

/// Graph counts in ticks of 100 ns, which chrono has no format for.
fn seven_digits(at: DateTime<Utc>) -> String {
    format!("{}.{:07}Z", at.format("%Y-%m-%dT%H:%M:%S"), at.nanosecond() % 1_000_000_000 / 100)
}
