//! `POST /beta/deviceManagement/managedDevices/bulkReprovisionCloudPc`: the checks of the request, the work, and the
//! answer in each of the shapes that Microsoft's pages and SDK disagree about. Other actions go beside this file.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::answer::{Answer, Call, Content};
use super::faults::Effect;
use super::fleet::Behaviour;
use super::http::Received;
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
    if let Err(refusal) = authorise(sim, call, received.authorization, &[READ_WRITE]) {
        return refusal;
    }
    if let Err(seconds) = admit(sim) {
        return Answer::graph_error(call, 429, "TooManyRequests", "Too many requests.")
            .with("retry-after", seconds.to_string());
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
    if !is_media_type(received.content_type, "application/json") {
        return Err("A valid Content-Type header is required: application/json.".to_owned());
    }
    let body: Value = serde_json::from_slice(received.body).map_err(|_| "Unable to read JSON request payload.")?;
    let body = body.as_object().ok_or("Unable to read JSON request payload: an object is expected.")?;
    if let Some(unknown) = body.keys().find(|key| *key != "managedDeviceIds" && !key.contains('@')) {
        let action = "bulkReprovisionCloudPc";
        return Err(format!(
            "The parameter '{unknown}' in the request payload is not a valid parameter for '{action}'."
        ));
    }
    let ids = body.get("managedDeviceIds").ok_or("The parameter 'managedDeviceIds' is missing.")?;
    let ids = ids.as_array().ok_or("The parameter 'managedDeviceIds' is not a collection of strings.")?;
    if ids.is_empty() {
        return Err("The parameter 'managedDeviceIds' is empty.".to_owned());
    }
    let mut devices = Vec::new();
    for id in ids {
        let text = id.as_str().ok_or("The parameter 'managedDeviceIds' is not a collection of strings.")?;
        let device = Some(text).filter(|text| text.len() == 36).and_then(|text| Uuid::try_parse(text).ok());
        let device = device.ok_or_else(|| format!("Invalid managed device id '{text}': not a GUID."))?;
        // Asked for twice in one call is asked for once.
        if !devices.contains(&device) {
            devices.push(device);
        }
    }
    Ok(devices)
}

// Here and in `reprovision`, the time is taken under the lock: what is recorded stays in the order of its times.
fn admit(sim: &Shared) -> Result<(), u64> {
    let mut state = unpoisoned(&sim.state);
    let now = sim.clock.now();
    state.window.admit(now)
}

fn reprovision(sim: &Shared, call: &Call, ids: &[Uuid]) -> (Buckets, Vec<usize>) {
    let mut state = unpoisoned(&sim.state);
    let now = sim.clock.now();
    let (mut buckets, mut performed) = (Buckets::default(), Vec::new());
    for &id in ids {
        // The GUID of zeros is a GUID to Graph, and no device's.
        let device = ManagedDeviceId::try_from(id).ok();
        let behaviour = device.map_or(Behaviour::NotFound, |device| sim.fleet.look_up(device).behaviour);
        let bucket = match behaviour {
            Behaviour::Succeeds | Behaviour::FailsLater => 0,
            Behaviour::Fails => 1,
            Behaviour::NotFound => 2,
            Behaviour::NotSupported => 3,
        };
        buckets[bucket].push(id.to_string());
        if let Some(device) = device.filter(|_| bucket == 0) {
            performed.push(state.ledger.record(device, call.client_request_id.clone(), now));
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
