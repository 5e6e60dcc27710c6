//! The HTTP surface: the headers that every answer carries, and the faults that strike around the work. Which path is
//! whose stands in `route`, and what an endpoint itself answers in its own file.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use axum::{Extension, Router};
use futures_util::stream;
use serde_json::Value;
use uuid::Uuid;

use super::answer::{Answer, Call, Content, http_date};
use super::faults::{Effect, Endpoint, WrongType};
use super::interface::Interface;
use super::ledger::ActionRequest;
use super::route::{Named, Received, Route, Target};
use super::traffic::GraphRequest;
use super::verdict::Verdict;
use super::wire::Switch;
use super::{Shared, console, discovery, identity, token, unpoisoned};

/// Graph's own limit for a request's body.
const REQUEST_BYTES_MAX: usize = 4 * 1024 * 1024;
const HUGE_BYTES: usize = 100 * 1024 * 1024;
pub(super) const HTML: &str = "<!DOCTYPE html><html><head><title>Error</title></head><body><h1>Our services aren't available right \
                    now</h1></body></html>";

pub(super) fn router(sim: Arc<Shared>) -> Router {
    Router::new().fallback(dispatch).with_state(sim)
}

async fn dispatch(State(sim): State<Arc<Shared>>, Extension(switch): Extension<Switch>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, REQUEST_BYTES_MAX).await;
    let call = Call {
        at: sim.clock.now(),
        request_id: Uuid::new_v4(),
        client_request_id: text_of(&parts.headers, "client-request-id").map(str::to_owned),
    };
    let too_large = body.is_err().then(|| {
        let message = "The request is larger than 4 MB.";
        Answer::graph_error(&call, 413, "RequestEntityTooLarge", message)
    });
    let body = body.unwrap_or_default();
    let received = Received {
        authorization: text_of(&parts.headers, "authorization"),
        content_type: text_of(&parts.headers, "content-type").unwrap_or_default(),
        method: &parts.method,
        target: Target::new(parts.uri.path(), parts.uri.query().unwrap_or_default()),
        body: &body,
    };
    let exchange = Exchange { sim: &sim, switch: &switch, call: &call };
    match received.target.lower()[..] {
        ["simulator", what] => respond(&sim, &call, &console::answer(&sim, &call, &parts.method, what, &body)),
        [_, "oauth2", "v2.0", "token"] => {
            if parts.method != Method::POST {
                let message = "Endpoint only accepts POST requests. Received a GET request.";
                return respond(&sim, &call, &Answer::entra_error(&call, 405, "invalid_request", 900_561, message));
            }
            let tenant = &received.target.path[0];
            let issue = |_: &Verdict| token::issue(&sim, &call, tenant, received.content_type, received.body);
            exchange.run(Endpoint::Token, &[], "", None, issue).await
        }
        [_, "v2.0", ".well-known", "openid-configuration"] if parts.method == Method::GET => {
            respond(&sim, &call, &discovery::answer(&sim, &call, &received.target.path[0]))
        }
        ["msi", "token"] => {
            let (query, header) = (parts.uri.query().unwrap_or_default(), text_of(&parts.headers, "x-identity-header"));
            let issue = |_: &Verdict| identity::issue(&sim, &call, &parts.method, query, header);
            exchange.run(Endpoint::Token, &[], "", None, issue).await
        }
        _ => {
            let written = parts.uri.path_and_query().map_or("", |path| path.as_str());
            exchange.graph(&received, written, too_large).await
        }
    }
}

/// One request while faults are applied to it.
struct Exchange<'a> {
    sim: &'a Shared,
    switch: &'a Switch,
    call: &'a Call,
}

impl Exchange<'_> {
    /// A request to Graph: noted down, struck by faults, and answered.
    async fn graph(&self, received: &Received<'_>, written: &str, too_large: Option<Answer>) -> Response {
        let (sim, call) = (self.sim, self.call);
        let route = Route::of(&received.target);
        let named = route.names(sim, received);
        let devices = named.guids();
        let action = route.action(received);
        unpoisoned(&sim.state).traffic.keep(GraphRequest {
            method: received.method.to_string(),
            path: written.to_owned(),
            body: String::from_utf8(received.body.to_vec()).unwrap_or_default(),
        });
        let arrived = action.map(|action| arrived(sim, call, action, named));
        let work = |verdict: &Verdict| too_large.unwrap_or_else(|| route.answer(sim, call, received, verdict));
        match route.endpoint(received) {
            Some(endpoint) => {
                let segment = action.map_or("", Interface::segment);
                self.run(endpoint, &devices, segment, arrived, work).await
            }
            None => respond(sim, call, &work(&Verdict::default())),
        }
    }

    async fn run(
        &self,
        endpoint: Endpoint,
        devices: &[Uuid],
        segment: &str,
        arrived: Option<usize>,
        work: impl FnOnce(&Verdict) -> Answer,
    ) -> Response {
        let verdict = unpoisoned(&self.sim.state).faults.decide(endpoint, devices);
        let instead = |fault| Answer::of_fault(self.call, endpoint, fault, segment);
        let mut answer = match &verdict.effect {
            Some(Effect::Hang) => return std::future::pending().await,
            Some(Effect::ResetBefore) => return self.reset(),
            Some(Effect::Status(fault)) => instead(fault),
            // The work is one step without an await: a client that goes away later cannot undo half of it.
            _ => work(&verdict),
        };
        let delay = self.sim.latency + verdict.latency;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        match &verdict.effect {
            Some(Effect::HangAfter) => return std::future::pending().await,
            Some(Effect::ResetAfter) => return self.reset(),
            Some(Effect::DoneThenStatus(fault)) => {
                answer = instead(fault);
            }
            _ => {}
        }
        if let Some(arrived) = arrived {
            let retry_after = answer.headers.iter().find(|(name, _)| *name == "retry-after");
            let retry_after = retry_after.map(|(_, value)| value.clone());
            let now = self.sim.clock.now();
            unpoisoned(&self.sim.state).ledger.answering(arrived, answer.status, retry_after, now);
        }
        self.alter(answer, verdict.effect.as_ref())
    }

    fn reset(&self) -> Response {
        self.switch.cut();
        Response::default()
    }

    /// The faults of a body, and of nothing but the body.
    fn alter(&self, mut answer: Answer, effect: Option<&Effect>) -> Response {
        let good = (200..300).contains(&answer.status);
        match effect {
            Some(Effect::Truncated) => {
                let bytes = bytes_of(&answer.content);
                if bytes.is_empty() {
                    return self.reset();
                }
                return with_body(headed(self.sim, self.call, &answer), truncated(&bytes), Some(bytes.len()));
            }
            Some(Effect::Huge) => {
                return with_body(headed(self.sim, self.call, &answer), huge(&bytes_of(&answer.content)), None);
            }
            Some(Effect::WrongType(wrong)) if good => {
                if let Content::Json(body) = answer.content {
                    answer.content = Content::Json(mistyped(body, *wrong));
                }
            }
            Some(Effect::Empty) if good => answer.content = Content::Nothing,
            Some(Effect::NotJson) if good => answer.content = Content::Html,
            _ => {}
        }
        if good {
            unpoisoned(&self.sim.state).ledger.answered(&answer.performed);
        }
        respond(self.sim, self.call, &answer)
    }
}

fn arrived(sim: &Shared, call: &Call, action: Interface, named: Named) -> usize {
    let mut state = unpoisoned(&sim.state);
    // The time is taken under the lock, so that the list is in the order of its times.
    state.ledger.arrived(ActionRequest {
        at: sim.clock.now(),
        client_request_id: call.client_request_id.clone(),
        action,
        managed_device_ids: named.managed_devices,
        cloud_pc_ids: named.cloud_pcs,
        status: None,
        retry_after: None,
        answered_at: None,
    })
}

fn respond(sim: &Shared, call: &Call, answer: &Answer) -> Response {
    let bytes = bytes_of(&answer.content);
    let length = (answer.status != 204).then_some(bytes.len());
    with_body(headed(sim, call, answer), Body::from(bytes), length)
}

/// Status and headers, without a body.
fn headed(sim: &Shared, call: &Call, answer: &Answer) -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut put = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    };
    put("date", &http_date(sim.clock.now()));
    put("request-id", &call.request_id.to_string());
    if let Some(id) = &call.client_request_id {
        put("client-request-id", id);
    }
    match answer.content {
        Content::Nothing => {}
        Content::Json(_) => put("content-type", "application/json; charset=utf-8"),
        Content::Html => put("content-type", "text/html; charset=utf-8"),
    }
    for (name, value) in &answer.headers {
        put(name, value);
    }
    response
}

fn with_body(mut response: Response, body: Body, length: Option<usize>) -> Response {
    if let Some(length) = length {
        response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    }
    *response.body_mut() = body;
    response
}

fn bytes_of(content: &Content) -> Bytes {
    match content {
        Content::Nothing => Bytes::new(),
        Content::Json(body) => body.to_string().into(),
        Content::Html => HTML.into(),
    }
}

/// Half of it, then the connection's end. The pause between them makes hyper send the half instead of dropping it.
fn truncated(bytes: &Bytes) -> Body {
    let half = bytes.slice(..bytes.len() / 2);
    Body::from_stream(stream::unfold(Some(half), |half| async {
        match half {
            Some(half) if !half.is_empty() => Some((Ok(half), Some(Bytes::new()))),
            Some(_) => {
                tokio::task::yield_now().await;
                Some((Err(std::io::Error::from(std::io::ErrorKind::ConnectionAborted)), None))
            }
            None => None,
        }
    }))
}

/// White space is legal before JSON: who reads it all finds the true answer.
fn huge(bytes: &Bytes) -> Body {
    static CHUNK: [u8; 64 * 1024] = [b' '; 64 * 1024];
    let padding = std::iter::repeat_n(Bytes::from_static(&CHUNK), HUGE_BYTES / CHUNK.len());
    let chunks = padding.chain(std::iter::once(bytes.clone()));
    Body::from_stream(stream::iter(chunks.map(Ok::<_, std::convert::Infallible>)))
}

fn mistyped(body: Value, wrong: WrongType) -> Value {
    match (wrong, body) {
        (WrongType::Array, body) => Value::Array(vec![body]),
        (WrongType::String, Value::Array(list)) => Value::String(Value::Array(list).to_string()),
        (WrongType::Number, Value::Array(list)) => list.len().into(),
        (_, Value::Object(fields)) => fields.into_iter().map(|(key, value)| (key, mistyped(value, wrong))).collect(),
        (_, other) => other,
    }
}

fn text_of<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
