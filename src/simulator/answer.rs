//! An answer before it goes onto the wire, and the services' two shapes of an error.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use super::faults::{Endpoint, ErrorBody, RetryAfter, StatusFault};

/// What is known of a request whichever endpoint it goes to.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) at: DateTime<Utc>,
    /// The service's own id for the request, in the header and in error bodies.
    pub(super) request_id: Uuid,
    pub(super) client_request_id: Option<String>,
}

#[derive(Debug, Clone)]
pub(super) enum Content {
    Nothing,
    Json(Value),
    Html,
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) content: Content,
    /// The ledger's entries that this answer tells of.
    pub(super) performed: Vec<usize>,
}

impl Answer {
    pub(super) fn json(status: u16, body: Value) -> Self {
        Self { status, headers: Vec::new(), content: Content::Json(body), performed: Vec::new() }
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Graph's error object.
    pub(super) fn graph_error(call: &Call, status: u16, code: &str, message: &str) -> Self {
        let client_request_id = call.client_request_id.clone().unwrap_or_else(|| call.request_id.to_string());
        let inner = json!({
            "date": call.at.format("%Y-%m-%dT%H:%M:%S").to_string(),
            "request-id": call.request_id,
            "client-request-id": client_request_id,
        });
        Self::json(status, json!({"error": {"code": code, "message": message, "innerError": inner}}))
    }

    /// Entra's error object: `aadsts` is the number that support and documentation know an error by.
    pub(super) fn entra_error(call: &Call, status: u16, error: &str, aadsts: u32, message: &str) -> Self {
        let timestamp = call.at.format("%Y-%m-%d %H:%M:%SZ").to_string();
        let correlation = call.client_request_id.clone().unwrap_or_else(|| call.request_id.to_string());
        let description = format!(
            "AADSTS{aadsts}: {message}\r\nTrace ID: {}\r\nCorrelation ID: {correlation}\r\nTimestamp: {timestamp}",
            call.request_id
        );
        let body = json!({
            "error": error,
            "error_description": description,
            "error_codes": [aadsts],
            "timestamp": timestamp,
            "trace_id": call.request_id,
            "correlation_id": correlation,
        });
        Self::json(status, body)
    }

    /// The status that a fault puts in the place of the true one. `segment` is that of the action struck.
    pub(super) fn of_fault(call: &Call, endpoint: Endpoint, fault: &StatusFault, segment: &str) -> Self {
        let message = fault.message.as_deref().unwrap_or("The simulator was told to answer so.");
        let message = &message.replace("{segment}", segment);
        let mut answer = match (fault.body, endpoint) {
            (ErrorBody::None, _) => Self { content: Content::Nothing, ..Self::json(fault.code, Value::Null) },
            (ErrorBody::Html, _) => Self { content: Content::Html, ..Self::json(fault.code, Value::Null) },
            (ErrorBody::Service, Endpoint::Token) => {
                let error = fault.error_code.as_deref().unwrap_or("temporarily_unavailable");
                Self::entra_error(call, fault.code, error, 90_033, message)
            }
            (ErrorBody::Service, _) => {
                let code = fault.error_code.as_deref().unwrap_or(usual_code(fault.code));
                Self::graph_error(call, fault.code, code, message)
            }
        };
        let retry_after = match fault.retry_after {
            RetryAfter::Missing => None,
            RetryAfter::Seconds(seconds) => Some(seconds.to_string()),
            RetryAfter::Date(seconds) => Some(http_date(call.at + chrono::TimeDelta::seconds(seconds))),
            RetryAfter::Zero => Some("0".to_owned()),
            RetryAfter::Negative => Some("-5".to_owned()),
            RetryAfter::Huge => Some("99999999999999999999999999".to_owned()),
            RetryAfter::Garbage => Some("soon".to_owned()),
        };
        answer.headers.extend(retry_after.map(|value| ("retry-after", value)));
        answer
    }
}

pub(super) fn http_date(at: DateTime<Utc>) -> String {
    httpdate::fmt_http_date(at.into())
}

/// The error codes that Graph's error page lists for these statuses.
fn usual_code(status: u16) -> &'static str {
    match status {
        400 => "BadRequest",
        401 => "InvalidAuthenticationToken",
        403 => "Forbidden",
        404 => "ResourceNotFound",
        405 => "MethodNotAllowed",
        409 => "Conflict",
        410 => "Gone",
        413 => "RequestEntityTooLarge",
        422 => "UnprocessableEntity",
        429 => "TooManyRequests",
        501 => "NotImplemented",
        502 => "BadGateway",
        503 => "ServiceUnavailable",
        504 => "GatewayTimeout",
        509 => "BandwidthLimitExceeded",
        _ => "InternalServerError",
    }
}
