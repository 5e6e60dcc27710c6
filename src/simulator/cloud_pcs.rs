//! `GET deviceManagement/virtualEndpoint/cloudPCs`, all or one: which Cloud PC is which managed device by now.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::answer::{Answer, Call};
use super::faults::Effect;
use super::fleet::{Behaviour, Device};
use super::ledger::Progress;
use super::odata::{List, Options, refuse};
use super::route::{Received, guid};
use super::token::{READ, READ_WRITE, authorise};
use super::verdict::Verdict;
use super::{Shared, State, seeded, unpoisoned};
use crate::domain::id::ManagedDeviceId;

const V1: List = List {
    path: "deviceManagement/virtualEndpoint/cloudPCs",
    type_name: "microsoft.graph.cloudPC",
    // As v1.0's schema has them, and no others: `status` is beta's.
    properties: &[
        "id",
        "aadDeviceId",
        "displayName",
        "gracePeriodEndDateTime",
        "imageDisplayName",
        "lastModifiedDateTime",
        "managedDeviceId",
        "managedDeviceName",
        "onPremisesConnectionName",
        "provisioningPolicyId",
        "provisioningPolicyName",
        "provisioningType",
        "servicePlanId",
        "servicePlanName",
        "userPrincipalName",
    ],
    filters: &["id", "managedDeviceId"],
    orders: &[],
};

const BETA: List = List {
    properties: &[
        "id",
        "aadDeviceId",
        "displayName",
        "gracePeriodEndDateTime",
        "imageDisplayName",
        "lastModifiedDateTime",
        "managedDeviceId",
        "managedDeviceName",
        "onPremisesConnectionName",
        "provisioningPolicyId",
        "provisioningPolicyName",
        "provisioningType",
        "servicePlanId",
        "servicePlanName",
        "status",
        "userPrincipalName",
    ],
    ..V1
};

fn kind(received: &Received<'_>) -> &'static List {
    if received.target.is_beta() { &BETA } else { &V1 }
}

/// All that the filter lets through. IDs outside the fleet are found by `managedDeviceId` only: they have no end.
pub(super) fn list(sim: &Shared, call: &Call, received: &Received<'_>, verdict: &Verdict) -> Answer {
    if let Err(refusal) = authorise(sim, call, received.authorization, &[READ, READ_WRITE]) {
        return refusal;
    }
    let options = match kind(received).options(&received.target.query) {
        Ok(options) => options,
        Err(message) => return refuse(call, &message),
    };
    let chosen = chosen(sim, call, &options);
    let state = unpoisoned(&sim.state);
    let items = chosen.into_iter().map(|(id, device)| entity(sim, &state, call, received, id, &device));
    let items = items.map(|item| upper(item, verdict)).collect();
    drop(state);
    kind(received).page(sim, received, &options, items, verdict)
}

/// The one that the path names.
pub(super) fn one(sim: &Shared, call: &Call, received: &Received<'_>, segment: &str, verdict: &Verdict) -> Answer {
    if let Err(refusal) = authorise(sim, call, received.authorization, &[READ, READ_WRITE]) {
        return refusal;
    }
    let options = match kind(received).options(&received.target.query) {
        Ok(options) => options,
        Err(message) => return refuse(call, &message),
    };
    let (id, device) = match find(sim, call, segment) {
        Ok(found) => found,
        Err(refusal) => return refusal,
    };
    let item = entity(sim, &unpoisoned(&sim.state), call, received, id, &device);
    Answer::json(200, kind(received).entity(sim, received, &options, upper(item, verdict)))
}

/// The Cloud PC that a path names, or what Graph answers instead.
pub(super) fn find(sim: &Shared, call: &Call, segment: &str) -> Result<(Uuid, Device), Answer> {
    let Some(id) = guid(segment) else {
        let message = format!("Invalid Cloud PC id '{segment}': not a GUID.");
        return Err(Answer::graph_error(call, 400, "BadRequest", &message));
    };
    let device = sim.fleet.of_cloud_pc(id).ok_or_else(|| {
        Answer::graph_error(call, 404, "ResourceNotFound", &format!("Cloud PC with id '{id}' was not found."))
    })?;
    Ok((id, device))
}

fn chosen(sim: &Shared, call: &Call, options: &Options) -> Vec<(Uuid, Device)> {
    let cloned = |(id, device): (Uuid, &Device)| (id, device.clone());
    let Some((name, text)) = &options.filter else { return sim.fleet.cloud_pcs().map(cloned).collect() };
    let Some(sought) = guid(text) else { return Vec::new() };
    if *name == "id" {
        return sim.fleet.of_cloud_pc(sought).map(|device| (sought, device)).into_iter().collect();
    }
    let asked = ManagedDeviceId::try_from(sought).ok().map(|id| sim.fleet.look_up(id));
    let of_asked = asked.iter().flat_map(|device| device.cloud_pcs().map(move |id| (id, device)));
    let candidates: Vec<(Uuid, Device)> = if sim.new_ids {
        let outside = asked.iter().any(|device| !sim.fleet.contains(device.managed_device_id));
        sim.fleet.cloud_pcs().chain(of_asked.filter(|_| outside)).map(cloned).collect()
    } else {
        of_asked.map(cloned).collect()
    };
    let state = unpoisoned(&sim.state);
    let enrolled = |id: Uuid, device: &Device| enrolled_as(sim, &state, id, device, call.at);
    candidates.into_iter().filter(|(id, device)| enrolled(*id, device) == Some(sought)).collect()
}

/// How far the Cloud PC's last reprovision is, if it had one that was carried out.
fn last_reprovision(
    sim: &Shared,
    state: &State,
    id: Uuid,
    device: &Device,
    now: DateTime<Utc>,
) -> Option<(Progress, u64)> {
    if !matches!(device.behaviour, Behaviour::Succeeds | Behaviour::FailsLater) {
        return None;
    }
    let started = state.ledger.of_cloud_pc(id).next_back()?.at;
    Some((sim.pace.reached(started, now), state.ledger.of_cloud_pc(id).count() as u64))
}

/// Its managed device ID at this time. Reprovisioning enrols a Cloud PC anew; one whose reprovision failed is not enrolled.
pub(super) fn enrolled_as(sim: &Shared, state: &State, id: Uuid, device: &Device, now: DateTime<Utc>) -> Option<Uuid> {
    if device.not_enrolled {
        return None;
    }
    let known = Some(device.managed_device_id.as_uuid());
    let Some((progress, times)) = last_reprovision(sim, state, id, device, now).filter(|_| sim.new_ids) else {
        return known;
    };
    let done = matches!(progress, Progress::Ended { .. }) && device.behaviour == Behaviour::Succeeds;
    done.then(|| seeded::guid(sim.seed, &format!("managed device of {id}"), times))
}

fn entity(
    sim: &Shared,
    state: &State,
    call: &Call,
    received: &Received<'_>,
    id: Uuid,
    device: &Device,
) -> Map<String, Value> {
    let enrolled = enrolled_as(sim, state, id, device, call.at);
    let last = last_reprovision(sim, state, id, device, call.at);
    let modified = match last {
        None => sim.clock.began(),
        Some((Progress::Active { since: at } | Progress::Ended { at } | Progress::Pending { since: at }, _)) => at,
    };
    let status = match last {
        Some((Progress::Ended { .. }, _)) if device.behaviour == Behaviour::FailsLater => "failed",
        None | Some((Progress::Ended { .. }, _)) => "provisioned",
        Some(_) => "provisioning",
    };
    let short = id.simple().to_string()[..8].to_owned();
    let all = json!({
        "id": id,
        "aadDeviceId": seeded::guid(sim.seed, &format!("Entra device of {id}"), 0),
        "displayName": format!("Cloud PC {short}"),
        "gracePeriodEndDateTime": null,
        "imageDisplayName": "Windows 11 Enterprise + Microsoft 365 Apps",
        "lastModifiedDateTime": modified.to_rfc3339_opts(SecondsFormat::Secs, true),
        "managedDeviceId": enrolled,
        "managedDeviceName": enrolled.map(|_| format!("CPC-{short}")),
        "onPremisesConnectionName": null,
        "provisioningPolicyId": seeded::guid(sim.seed, "provisioning policy", 0),
        "provisioningPolicyName": "Simulated",
        "provisioningType": "dedicated",
        "servicePlanId": seeded::guid(sim.seed, "service plan", 0),
        "servicePlanName": "Cloud PC Enterprise 2vCPU/8GB/128GB",
        "status": status,
        "userPrincipalName": format!("user-{short}@simulated.example"),
    });
    let Value::Object(all) = all else { return Map::new() };
    let known = kind(received).properties;
    all.into_iter().filter(|(name, _)| known.contains(&name.as_str())).collect()
}

fn upper(mut item: Map<String, Value>, verdict: &Verdict) -> Map<String, Value> {
    if verdict.effect == Some(Effect::UpperCase) {
        for name in ["id", "managedDeviceId"] {
            if let Some(Value::String(id)) = item.get_mut(name) {
                id.make_ascii_uppercase();
            }
        }
    }
    item
}
