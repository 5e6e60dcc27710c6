//! `POST /beta/deviceManagement/managedDevices/bulkReprovisionCloudPc`: the checks of the request, the work, and the
//! answer in each of the shapes that Microsoft's pages and SDK disagree about. Beside it, what all actions share.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::answer::{Answer, Call, Content};
use super::faults::Effect;
use super::fleet::Behaviour;
use super::interface::Interface;
use super::ledger::Attempt;
use super::route::{Received, guid};
use super::token::{READ_WRITE, authorise, is_media_type};
use super::verdict::Verdict;
use super::{Shared, seeded, unpoisoned};
use crate::domain::id::ManagedDeviceId;

/// Which of the documented answers a success takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum AnswerShape {
    /// `{"value": {…}}`, as the reference page shows.
    #[default]
    Wrapped,
    /// The lists at the top level, the only form that Microsoft's SDK reads.
    Bare,
    /// `204 No Content`.
    Empty,
}

/// The names of the four lists, in the page's order.
const LISTS: [&str; 4] = ["successfulDeviceIds", "failedDeviceIds", "notFoundDeviceIds", "notSupportedDeviceIds"];

type Buckets = [Vec<String>; 4];

/// The IDs in a body, as far as it can be read: for faults that look for a device, and for the list of requests.
pub(super) fn ids_in(body: &[u8]) -> Vec<String> {
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return Vec::new() };
    let ids = body.get("managedDeviceIds").and_then(Value::as_array);
    ids.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Checks the request as Graph does, reprovisions what can be, and tells.
pub(super) fn carry_out(sim: &Shared, call: &Call, received: &Received<'_>, verdict: &Verdict) -> Answer {
    let refused = authorise(sim, call, received.authorization, &[READ_WRITE])
        .and_then(|()| Interface::BulkReprovisionCloudPc.refuse_if_gone(sim, call))
        .and_then(|()| admit(sim, call));
    if let Err(refusal) = refused {
        return refusal;
    }
    let ids = match requested(received) {
        Ok(ids) => ids,
        Err(message) => return Answer::graph_error(call, 400, "BadRequest", &message),
    };
    if let Some(Effect::Poison(device)) = verdict.effect {
        let message = format!("Invalid managed device id '{device}'.");
        return Answer::graph_error(call, 400, "BadRequest", &message);
    }
    let (mut buckets, performed) = reprovision(sim, call, &ids);
    let shape = match verdict.effect {
        Some(Effect::Shape(shape)) => shape,
        _ => sim.answer_shape,
    };
    misplace(sim, &mut buckets, verdict, &ids);
    Answer { performed, ..tell(sim, shape, buckets, verdict.effect.as_ref()) }
}

fn requested(received: &Received<'_>) -> Result<Vec<Uuid>, String> {
    let body = json_object(received)?;
    if let Some(unknown) = body.keys().find(|key| *key != "managedDeviceIds" && !key.contains('@')) {
        return Err(no_parameter(unknown, "bulkReprovisionCloudPc"));
    }
    guids(&body, "managedDeviceIds", "managed device")
}

/// The body, if it is a JSON object and says so.
pub(super) fn json_object(received: &Received<'_>) -> Result<Map<String, Value>, String> {
    if !is_media_type(received.content_type, "application/json") {
        return Err("A valid Content-Type header is required: application/json.".to_owned());
    }
    match serde_json::from_slice(received.body) {
        Ok(Value::Object(body)) => Ok(body),
        Ok(_) => Err("Unable to read JSON request payload: an object is expected.".to_owned()),
        Err(_) => Err("Unable to read JSON request payload.".to_owned()),
    }
}

pub(super) fn no_parameter(name: &str, action: &str) -> String {
    format!("The parameter '{name}' in the request payload is not a valid parameter for '{action}'.")
}

/// A collection of GUIDs that is not empty; one that stands there twice is asked for once.
pub(super) fn guids(body: &Map<String, Value>, name: &str, what: &str) -> Result<Vec<Uuid>, String> {
    let ids = body.get(name).ok_or_else(|| format!("The parameter '{name}' is missing."))?;
    let no_collection = || format!("The parameter '{name}' is not a collection of strings.");
    let ids = ids.as_array().ok_or_else(no_collection)?;
    if ids.is_empty() {
        return Err(format!("The parameter '{name}' is empty."));
    }
    let mut found = Vec::new();
    for id in ids {
        let text = id.as_str().ok_or_else(no_collection)?;
        let id = guid(text).ok_or_else(|| format!("Invalid {what} id '{text}': not a GUID."))?;
        if !found.contains(&id) {
            found.push(id);
        }
    }
    Ok(found)
}

/// Counts one write. Here and in `reprovision`, the time is taken under the lock: what is recorded stays in the order of
/// its times.
pub(super) fn admit(sim: &Shared, call: &Call) -> Result<(), Answer> {
    let mut state = unpoisoned(&sim.state);
    let now = sim.clock.now();
    state.window.admit(now).map_err(|seconds| {
        Answer::graph_error(call, 429, "TooManyRequests", "Too many requests.").with("retry-after", seconds.to_string())
    })
}

fn reprovision(sim: &Shared, call: &Call, ids: &[Uuid]) -> (Buckets, Vec<usize>) {
    let mut state = unpoisoned(&sim.state);
    let now = sim.clock.now();
    let (mut buckets, mut performed) = (Buckets::default(), Vec::new());
    for &id in ids {
        // The GUID of zeros is a GUID to Graph, and no device's.
        let device = ManagedDeviceId::try_from(id).ok();
        let device = device.map(|device| sim.fleet.look_up(device));
        let behaviour = device.as_ref().map_or(Behaviour::NotFound, |device| device.behaviour);
        let bucket = match behaviour {
            Behaviour::Succeeds | Behaviour::FailsLater => 0,
            Behaviour::Fails => 1,
            Behaviour::NotFound => 2,
            Behaviour::NotSupported => 3,
        };
        buckets[bucket].push(id.to_string());
        if let Some(device) = device.filter(|_| bucket == 0) {
            let (managed_device_id, cloud_pc_id) = (device.managed_device_id, device.cloud_pc_id);
            let attempt = Attempt { managed_device_id, cloud_pc_id, at: now, hidden: false };
            performed.push(state.ledger.record(attempt, call.client_request_id.clone()));
        }
    }
    (buckets, performed)
}

/// The faults that put a device where it does not belong. The ledger knows better.
fn misplace(sim: &Shared, buckets: &mut Buckets, verdict: &Verdict, ids: &[Uuid]) {
    let victim = verdict.device.map(ManagedDeviceId::as_uuid).or_else(|| ids.first().copied());
    let victim = victim.map(|id| id.to_string()).unwrap_or_default();
    match verdict.effect {
        Some(Effect::InNoBucket) => buckets.iter_mut().for_each(|list| list.retain(|id| *id != victim)),
        Some(Effect::InTwoBuckets) => {
            let second = usize::from(buckets[0].contains(&victim));
            buckets[second].push(victim);
        }
        Some(Effect::SurplusId) => {
            let stranger =
                seeded::guid(sim.seed, "never asked for", unpoisoned(&sim.state).ledger.entries().len() as u64);
            buckets[0].push(stranger.to_string());
        }
        Some(Effect::UpperCase) => buckets.iter_mut().flatten().for_each(|id| id.make_ascii_uppercase()),
        _ => {}
    }
}

fn tell(sim: &Shared, shape: AnswerShape, buckets: Buckets, effect: Option<&Effect>) -> Answer {
    let mut result = Map::new();
    for (name, list) in LISTS.into_iter().zip(buckets) {
        match effect {
            Some(Effect::MissingLists) => {}
            Some(Effect::MissingEmptyLists) if list.is_empty() => {}
            Some(Effect::NullLists) => drop(result.insert(name.to_owned(), Value::Null)),
            Some(Effect::NullEmptyLists) if list.is_empty() => drop(result.insert(name.to_owned(), Value::Null)),
            _ => drop(result.insert(name.to_owned(), json!(list))),
        }
    }
    let named = |key: &str, value: String, result: Map<String, Value>| {
        std::iter::once((key.to_owned(), Value::from(value))).chain(result).collect::<Map<_, _>>()
    };
    match shape {
        AnswerShape::Wrapped => {
            let result = named("@odata.type", "microsoft.graph.cloudPcBulkRemoteActionResult".to_owned(), result);
            Answer::json(200, json!({"value": result}))
        }
        AnswerShape::Bare => {
            let context = format!("{}/beta/$metadata#microsoft.graph.cloudPcBulkRemoteActionResult", sim.base_url);
            Answer::json(200, Value::Object(named("@odata.context", context, result)))
        }
        AnswerShape::Empty => Answer { content: Content::Nothing, ..Answer::json(204, Value::Null) },
    }
}
