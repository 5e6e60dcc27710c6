//! `POST /v1.0/$batch` of `POST …/cloudPCs/{id}/reprovision`: what is sent, and what each answer in it says.
//!
//! Source: the reference pages "cloudPC: reprovision" (v1.0) and "Combine multiple HTTP requests using JSON batching": at most
//! twenty requests; answers come in any order, each with its own status and headers.

use serde_json::Value;

use super::wire;
use crate::domain::answer::{Body, HttpAnswer};
use crate::domain::id::{CallId, CloudPcId, ManagedDeviceId};
use crate::domain::printable::printable;

pub(super) const PATH: &str = "/v1.0/$batch";

/// Characters of an ID in the answer that are kept.
const KEPT_CHARS: usize = 100;

/// The request body. Each inner request's id is its managed device ID, so that the answer's body, which is kept, reads alone.
pub(super) fn request_body(call: CallId, targets: &[(ManagedDeviceId, CloudPcId)]) -> Vec<u8> {
    let request = |(device, cloud_pc): &(ManagedDeviceId, CloudPcId)| {
        serde_json::json!({
            "id": device,
            "method": "POST",
            "url": format!("/deviceManagement/virtualEndpoint/cloudPCs/{cloud_pc}/reprovision"),
            "headers": { "Content-Type": "application/json", "client-request-id": call },
            "body": {},
        })
    };
    let requests: Vec<Value> = targets.iter().map(request).collect();
    serde_json::json!({ "requests": requests }).to_string().into_bytes()
}

/// The answers in the body of a 200, each by its id as it came.
pub(super) fn answers(body: &[u8]) -> Body {
    let body: Value = match serde_json::from_slice(body) {
        Ok(body) => body,
        Err(_) if body.iter().all(u8::is_ascii_whitespace) => return none("the body is empty"),
        Err(_) => return none("the body is no JSON"),
    };
    let Some(responses) = body.get("responses").and_then(Value::as_array) else {
        return none("the body has no list of responses");
    };
    Body::Batch(responses.iter().map(inner).collect())
}

fn none(why: &str) -> Body {
    Body::NoBuckets(why.to_owned())
}

/// An answer that is odd keeps what can be read of it: without a status that can be read it proves nothing.
fn inner(response: &Value) -> (String, HttpAnswer) {
    let id = match response.get("id") {
        Some(Value::String(id)) => printable(id, KEPT_CHARS).to_string(),
        other => other.map(ToString::to_string).unwrap_or_default(),
    };
    let status = response.get("status").and_then(Value::as_u64).and_then(|status| u16::try_from(status).ok());
    let headers = response.get("headers").and_then(Value::as_object);
    let header = |name: &str| {
        let (_, value) = headers?.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        value.as_str().map(str::to_owned).or_else(|| value.as_u64().map(|number| number.to_string()))
    };
    let answer = HttpAnswer {
        status: status.unwrap_or(0),
        retry_after: header("Retry-After"),
        date: None,
        error: response.get("body").and_then(wire::error_in),
        body: Body::NoBuckets(String::new()),
    };
    (id, answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::answer::GraphError;

    #[test]
    fn every_inner_answer_is_read_with_its_own_status_wait_and_error() {
        let body = br#"{"responses":[
            {"id":"a","status":204,"headers":{}},
            {"id":"b","status":429,"headers":{"retry-after":"7"},"body":{"error":{"code":"TooManyRequests","message":"slow"}}},
            {"id":"c","status":429,"headers":{"Retry-After":9}},
            {"id":5,"status":"204"}, 7]}"#;
        let Body::Batch(answers) = answers(body) else { panic!() };
        let seen: Vec<_> = answers.iter().map(|(id, a)| (id.as_str(), a.status, a.retry_after.as_deref())).collect();
        assert_eq!(
            seen,
            [("a", 204, None), ("b", 429, Some("7")), ("c", 429, Some("9")), ("5", 0, None), ("", 0, None)]
        );
        let error = GraphError { code: "TooManyRequests".to_owned(), message: "slow".to_owned() };
        assert_eq!(answers[1].1.error, Some(error));
        for odd in ["", "{}", "<html>", r#"{"responses":null}"#, r#"{"responses":{}}"#, "[]"] {
            assert!(matches!(super::answers(odd.as_bytes()), Body::NoBuckets(_)), "{odd}");
        }
    }
}
