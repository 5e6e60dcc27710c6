//! The endpoint that gives an Azure App Service's processes the tokens of its managed identity.
//! Source: Microsoft's page "How to use managed identities for App Service", section on the REST endpoint (2019-08-01).

use std::collections::HashMap;

use axum::http::Method;
use serde_json::json;

use super::answer::{Answer, Call};
use super::{Shared, token, unpoisoned};

/// Answers `GET /msi/token`.
pub(super) fn issue(sim: &Shared, call: &Call, method: &Method, query: &str, header: Option<&str>) -> Answer {
    let refuse = |status: u16, message: &str| Answer::json(status, json!({"statusCode": status, "message": message}));
    if method != Method::GET {
        return refuse(405, "Only GET is allowed here.");
    }
    // The header keeps out requests that somebody else has been talked into sending.
    if header != Some(unpoisoned(&sim.credentials).identity_header.as_str()) {
        return refuse(403, "The X-IDENTITY-HEADER is missing or wrong.");
    }
    let query: HashMap<_, _> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let given = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
    if given("api-version") != "2019-08-01" {
        return refuse(400, "The api-version is missing or not supported.");
    }
    if given("resource") != sim.base_url {
        let message = format!("AADSTS500011: The resource principal named {} was not found.", given("resource"));
        return refuse(400, &message);
    }
    let user_assigned = query.get("client_id");
    if user_assigned.is_some_and(|id| !id.eq_ignore_ascii_case(&sim.client_id.to_string())) {
        return refuse(
            400,
            "No User Assigned or Delegated Managed Identity found for specified ClientId/ResourceId/PrincipalId.",
        );
    }
    let granted = token::grant(sim, call);
    let body = json!({
        "access_token": granted.token,
        "expires_on": granted.expires.timestamp().to_string(),
        "resource": sim.base_url,
        "token_type": "Bearer",
        "client_id": sim.client_id,
    });
    Answer::json(200, body)
}
