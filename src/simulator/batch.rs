//! `POST $batch`: up to twenty requests in one, each answered by itself and in any order.

use axum::http::Method;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::action::json_object;
use super::answer::{Answer, Call, Content};
use super::faults::{Effect, Endpoint};
use super::odata::refuse;
use super::route::{Received, Route, Target};
use super::token::authorise;
use super::verdict::Verdict;
use super::{AnswerShape, Shared, seeded, unpoisoned};

/// Graph's own limit.
const REQUESTS_MAX: usize = 20;

/// One of the requests inside.
#[derive(Debug)]
struct Inner {
    id: String,
    method: Method,
    target: Target,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// Its answer, while faults are applied to it.
struct Told {
    id: String,
    answer: Answer,
}

/// Whether any of its requests reprovisions.
pub(super) fn reprovisions(received: &Received<'_>) -> bool {
    legible(received).iter().any(|inner| matches!(Route::of(&inner.target), Route::Reprovision(_)))
}

/// A batch without a reprovision is struck by the faults of the first of its requests that has an endpoint.
pub(super) fn first_endpoint(received: &Received<'_>) -> Option<Endpoint> {
    legible(received).iter().find_map(|inner| match Route::of(&inner.target) {
        Route::Batch => None,
        route => route.endpoint(&inner.received(received)),
    })
}

/// The Cloud PCs that its requests name.
pub(super) fn ids_in(received: &Received<'_>) -> Vec<String> {
    let inner = legible(received);
    let ids = inner.iter().filter_map(|inner| match Route::of(&inner.target) {
        Route::Reprovision(id) | Route::ReadBackOfCloudPc(id) | Route::CloudPc(id) => Some(id.to_owned()),
        _ => None,
    });
    ids.collect()
}

/// What can be read of it, whether or not all of it can.
fn legible(received: &Received<'_>) -> Vec<Inner> {
    let Ok(body) = serde_json::from_slice::<Value>(received.body) else { return Vec::new() };
    let requests = body.get("requests").and_then(Value::as_array).into_iter().flatten();
    requests.filter_map(|request| read(request, received).ok()).collect()
}

/// Answers each request as if it had come by itself.
pub(super) fn carry_out(sim: &Shared, call: &Call, received: &Received<'_>, verdict: &Verdict) -> Answer {
    // Which roles are needed, each of the requests knows.
    if let Err(refusal) = authorise(sim, call, received.authorization, &[])
        && refusal.status == 401
    {
        return refusal;
    }
    let requests = match requested(received) {
        Ok(requests) => requests,
        Err(message) => return refuse(call, &message),
    };
    let mut told: Vec<Told> = Vec::new();
    for inner in &requests {
        told.extend(one(sim, call, received, inner, verdict));
    }
    misplace(sim, call, received, &requests, &mut told, verdict);
    let nth = {
        let mut state = unpoisoned(&sim.state);
        state.batches += 1;
        state.batches
    };
    let order = format!("order of batch {nth}");
    let mut shuffled: Vec<(f64, Told)> =
        told.into_iter().zip(0..).map(|(told, at)| (seeded::fraction(sim.seed, &order, at), told)).collect();
    shuffled.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    let told: Vec<Told> = shuffled.into_iter().map(|(_, told)| told).collect();

    let good = told.iter().filter(|told| (200..300).contains(&told.answer.status));
    let performed = good.flat_map(|told| told.answer.performed.iter().copied()).collect();
    let responses: Vec<Value> = told.iter().map(|told| told.json(verdict)).collect();
    let answer = match verdict.effect {
        Some(Effect::Shape(AnswerShape::Empty)) => {
            Answer { content: Content::Nothing, ..Answer::json(204, Value::Null) }
        }
        Some(Effect::NullLists) => Answer::json(200, json!({"responses": null})),
        Some(Effect::MissingLists) => Answer::json(200, json!({})),
        _ => Answer::json(200, json!({"responses": responses})),
    };
    Answer { performed, ..answer }
}

fn requested(received: &Received<'_>) -> Result<Vec<Inner>, String> {
    let body = json_object(received)?;
    let requests = body.get("requests").and_then(Value::as_array);
    let requests = requests.ok_or("The batch request must have a collection 'requests'.")?;
    if requests.is_empty() || requests.len() > REQUESTS_MAX {
        let count = requests.len();
        return Err(format!("The number of batch requests, {count}, is not from 1 to the maximum of {REQUESTS_MAX}."));
    }
    let mut inner: Vec<Inner> = Vec::new();
    for request in requests {
        let read = read(request, received)?;
        if inner.iter().any(|earlier| earlier.id == read.id) {
            return Err(format!("The request id '{}' stands twice in the batch.", read.id));
        }
        inner.push(read);
    }
    Ok(inner)
}

fn read(request: &Value, outer: &Received<'_>) -> Result<Inner, String> {
    let text = |name: &str| {
        let text = request.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        text.ok_or_else(|| format!("Each request of a batch must have a string '{name}'."))
    };
    let (id, method, url) = (text("id")?, text("method")?, text("url")?);
    if request.get("dependsOn").is_some_and(|on| on.as_array().is_none_or(|on| !on.is_empty())) {
        return Err("'dependsOn' is not simulated.".to_owned());
    }
    let method = method.to_ascii_uppercase().parse().map_err(|_| format!("'{method}' is no method."))?;
    // Relative to the version that the batch itself was sent to; an absolute URL leads nowhere.
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let target = Target::new(&format!("{}/{}", outer.target.version(), path.trim_start_matches('/')), query);
    let headers = request.get("headers").and_then(Value::as_object).into_iter().flatten();
    let headers = headers.filter_map(|(name, value)| Some((name.to_ascii_lowercase(), value.as_str()?.to_owned())));
    let body = request.get("body").filter(|body| !body.is_null()).map(|body| body.to_string().into_bytes());
    Ok(Inner { id: id.to_owned(), method, target, headers: headers.collect(), body: body.unwrap_or_default() })
}

impl Inner {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn received<'a>(&'a self, outer: &Received<'a>) -> Received<'a> {
        Received {
            authorization: self.header("authorization").or(outer.authorization),
            content_type: self.header("content-type").unwrap_or_default(),
            method: &self.method,
            target: self.target.clone(),
            body: &self.body,
        }
    }

    fn call(&self, outer: &Call) -> Call {
        let own = self.header("client-request-id").map(str::to_owned);
        Call { at: outer.at, request_id: Uuid::new_v4(), client_request_id: own.or(outer.client_request_id.clone()) }
    }
}

/// One request's answer; none if a fault lost it.
fn one(sim: &Shared, outer: &Call, received: &Received<'_>, inner: &Inner, batch: &Verdict) -> Option<Told> {
    let (call, received) = (inner.call(outer), inner.received(received));
    let route = Route::of(&received.target);
    let named = route.names(sim, &received).guids();
    let verdict = unpoisoned(&sim.state).faults.decide(Endpoint::BatchItem, &named);
    let segment = route.action(&received).map_or("", super::Interface::segment);
    let instead = |fault| Answer::of_fault(&call, Endpoint::BatchItem, fault, segment);
    let answer = match (&verdict.effect, &batch.effect) {
        (Some(Effect::Status(fault)), _) => Some(instead(fault)),
        (Some(Effect::ResetBefore), _) => None,
        (_, Some(Effect::Poison(device))) if named.contains(&device.as_uuid()) => {
            let poisoned = Verdict { effect: batch.effect.clone(), ..Verdict::default() };
            Some(route.answer(sim, &call, &received, &poisoned))
        }
        (_, _) if route == Route::Batch => Some(refuse(&call, "A batch cannot hold a batch.")),
        _ => Some(route.answer(sim, &call, &received, &Verdict::default())),
    };
    let answer = match &verdict.effect {
        Some(Effect::DoneThenStatus(fault)) => Some(instead(fault)),
        Some(Effect::ResetAfter | Effect::InNoBucket) => None,
        _ => answer,
    };
    answer.map(|answer| Told { id: inner.id.clone(), answer })
}

/// The faults that answer one request not at all, or twice, or one that nobody made. The ledger knows better.
fn misplace(
    sim: &Shared,
    call: &Call,
    received: &Received<'_>,
    requests: &[Inner],
    told: &mut Vec<Told>,
    verdict: &Verdict,
) {
    let holds = |inner: &&Inner| {
        let named = Route::of(&inner.target).names(sim, &inner.received(received)).guids();
        verdict.device.is_none_or(|device| named.contains(&device.as_uuid()))
    };
    let victim = requests.iter().find(holds).map(|inner| inner.id.clone()).unwrap_or_default();
    match verdict.effect {
        Some(Effect::InNoBucket) => told.retain(|told| told.id != victim),
        Some(Effect::InTwoBuckets) => {
            let good = told.iter().any(|told| told.id == victim && told.answer.status < 300);
            let answer = if good {
                Answer::graph_error(call, 409, "Conflict", "The simulator was told to answer so.")
            } else {
                Answer { content: Content::Nothing, ..Answer::json(204, Value::Null) }
            };
            told.push(Told { id: victim, answer });
        }
        Some(Effect::SurplusId) => {
            let answer = Answer { content: Content::Nothing, ..Answer::json(204, Value::Null) };
            told.push(Told { id: "never asked for".to_owned(), answer });
        }
        Some(Effect::UpperCase) => told.iter_mut().for_each(|told| told.id.make_ascii_uppercase()),
        _ => {}
    }
}

impl Told {
    fn json(&self, verdict: &Verdict) -> Value {
        let mut headers = Map::new();
        for (name, value) in &self.answer.headers {
            let name = if *name == "retry-after" { "Retry-After" } else { name };
            headers.insert(name.to_owned(), json!(value));
        }
        let body = match &self.answer.content {
            Content::Nothing => Value::Null,
            Content::Json(body) => {
                headers.insert("Content-Type".to_owned(), json!("application/json"));
                body.clone()
            }
            Content::Html => {
                headers.insert("Content-Type".to_owned(), json!("text/html"));
                json!(super::http::HTML)
            }
        };
        let mut told = Map::new();
        told.insert("id".to_owned(), json!(self.id));
        told.insert("status".to_owned(), json!(self.answer.status));
        let leave_out = verdict.effect == Some(Effect::MissingEmptyLists);
        if !(leave_out && headers.is_empty()) {
            told.insert("headers".to_owned(), Value::Object(headers));
        }
        if !(leave_out && body.is_null()) {
            told.insert("body".to_owned(), body);
        }
        Value::Object(told)
    }
}
