//! Entra ID's token endpoint for app-only access, with a client secret or an assertion, and what Graph makes of a bearer token.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use uuid::Uuid;

use super::answer::{Answer, Call};
use super::{Shared, assertion, unpoisoned};

/// The application permission that the action needs.
pub const READ_WRITE: &str = "CloudPC.ReadWrite.All";
/// The one that suffices for the read-back.
pub const READ: &str = "CloudPC.Read.All";

/// The tokens in circulation, and what the next ones will be.
#[derive(Debug)]
pub(super) struct Tokens {
    issued: HashMap<String, Issued>,
    pub(super) roles: Vec<String>,
    pub(super) lifetime: Duration,
}

#[derive(Debug)]
struct Issued {
    roles: Vec<String>,
    expires: DateTime<Utc>,
}

impl Tokens {
    pub(super) fn new(roles: Vec<String>, lifetime: Duration) -> Self {
        Self { issued: HashMap::new(), roles, lifetime }
    }

    /// From now on every token handed out so far is refused as expired.
    pub(super) fn expire(&mut self, now: DateTime<Utc>) {
        self.issued.values_mut().for_each(|token| token.expires = token.expires.min(now));
    }
}

/// Answers `POST /{tenant}/oauth2/v2.0/token`.
pub(super) fn issue(sim: &Shared, call: &Call, tenant: &str, content_type: &str, body: &[u8]) -> Answer {
    let refuse = |status, error, aadsts, message: &str| Answer::entra_error(call, status, error, aadsts, message);
    // As Entra does: a body of another type is read as one that says nothing.
    let form: HashMap<_, _> = if is_media_type(content_type, "application/x-www-form-urlencoded") {
        url::form_urlencoded::parse(body).into_owned().collect()
    } else {
        HashMap::new()
    };
    let given = |name: &str| form.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let missing = |name: &str| {
        let message = format!("The request body must contain the following parameter: '{name}'.");
        refuse(400, "invalid_request", 900_144, &message)
    };

    if !tenant.eq_ignore_ascii_case(&sim.tenant_id.to_string()) {
        let message = format!("Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID.");
        return refuse(400, "invalid_request", 90_002, &message);
    }
    match given("grant_type") {
        None => return missing("grant_type"),
        Some("client_credentials") => {}
        Some(other) => {
            let message = format!("The app requested an unsupported grant type '{other}'.");
            return refuse(400, "unsupported_grant_type", 70_003, &message);
        }
    }
    let Some(client_id) = given("client_id") else { return missing("client_id") };
    if !client_id.eq_ignore_ascii_case(&sim.client_id.to_string()) {
        let message = format!("Application with identifier '{client_id}' was not found in the directory.");
        return refuse(400, "unauthorized_client", 700_016, &message);
    }
    let Some(scope) = given("scope") else { return missing("scope") };
    let Some(resource) = scope.strip_suffix("/.default") else {
        let message = format!(
            "The provided value for scope {scope} is not valid. Client credential flows must have a scope value with \
             /.default suffixed to the resource identifier (application ID URI)."
        );
        return refuse(400, "invalid_scope", 1_002_012, &message);
    };
    if resource != sim.base_url {
        let message = format!("The resource principal named {resource} was not found in the tenant.");
        return refuse(400, "invalid_resource", 500_011, &message);
    }
    match (given("client_secret"), given("client_assertion")) {
        (None, None) => {
            let message =
                "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.";
            return refuse(401, "invalid_client", 7_000_218, message);
        }
        (_, Some(presented)) => {
            if given("client_assertion_type") != Some("urn:ietf:params:oauth:client-assertion-type:jwt-bearer") {
                return missing("client_assertion_type");
            }
            if let Err((aadsts, message)) = assertion::check(sim, call, client_id, tenant, presented) {
                return refuse(401, "invalid_client", aadsts, &message);
            }
        }
        (Some(secret), None) if secret != unpoisoned(&sim.credentials).secret => {
            let message = format!(
                "Invalid client secret provided. Ensure the secret being sent in the request is the client secret \
                 value, not the client secret ID, for a secret added to app '{client_id}'."
            );
            return refuse(401, "invalid_client", 7_000_215, &message);
        }
        (Some(_), None) => {}
    }
    let Granted { token, lifetime, .. } = grant(sim, call);
    let seconds = lifetime.as_secs();
    Answer::json(
        200,
        json!({"token_type": "Bearer", "expires_in": seconds, "ext_expires_in": seconds, "access_token": token}),
    )
    .with("cache-control", "no-store, no-cache")
}

/// A token that has been issued.
pub(super) struct Granted {
    pub(super) token: String,
    pub(super) lifetime: Duration,
    pub(super) expires: DateTime<Utc>,
}

/// Issues a token to the app, whose credentials have been checked.
pub(super) fn grant(sim: &Shared, call: &Call) -> Granted {
    let mut state = unpoisoned(&sim.state);
    let tokens = &mut state.tokens;
    // Kept for a day after they expire, to be told from forged ones.
    tokens.issued.retain(|_, token| token.expires + TimeDelta::days(1) > call.at);
    let (roles, lifetime) = (tokens.roles.clone(), tokens.lifetime);
    let expires = call.at + TimeDelta::from_std(lifetime).unwrap_or(TimeDelta::days(1));
    let token = looks_like_a_jwt(&json!({
        "aud": sim.base_url, "iss": format!("{}/{}/v2.0", sim.base_url, sim.tenant_id), "tid": sim.tenant_id,
        "appid": sim.client_id, "idtyp": "app", "roles": roles, "uti": Uuid::new_v4(),
        "iat": call.at.timestamp(), "nbf": call.at.timestamp(), "exp": expires.timestamp(),
    }));
    tokens.issued.insert(token.clone(), Issued { roles, expires });
    Granted { token, lifetime, expires }
}

/// The refusal of a request whose bearer token does not carry one of these roles.
pub(super) fn authorise(sim: &Shared, call: &Call, authorization: Option<&str>, any_of: &[&str]) -> Result<(), Answer> {
    let unauthenticated = |message| {
        let challenge = format!(
            "Bearer realm=\"\", authorization_uri=\"{}/common/oauth2/authorize\", client_id=\"{}\"",
            sim.base_url, sim.client_id
        );
        Answer::graph_error(call, 401, "InvalidAuthenticationToken", message).with("www-authenticate", challenge)
    };
    let (scheme, token) = authorization.unwrap_or_default().split_once(' ').unwrap_or_default();
    if !scheme.eq_ignore_ascii_case("bearer") || token.trim().is_empty() {
        return Err(unauthenticated("Access token is empty."));
    }
    let state = unpoisoned(&sim.state);
    let Some(issued) = state.tokens.issued.get(token.trim()) else {
        return Err(unauthenticated("Invalid JWT access token."));
    };
    if issued.expires <= call.at {
        return Err(unauthenticated("Lifetime validation failed, the token is expired."));
    }
    if !issued.roles.iter().any(|role| any_of.contains(&role.as_str())) {
        let message = format!(
            "Application is not authorized to perform this operation. Application must have one of the following \
             scopes: {}",
            any_of.join(", ")
        );
        return Err(Answer::graph_error(call, 403, "Forbidden", &message));
    }
    Ok(())
}

pub(super) fn is_media_type(content_type: &str, expected: &str) -> bool {
    content_type.split(';').next().is_some_and(|essence| essence.trim().eq_ignore_ascii_case(expected))
}

/// Three base64url parts, as an access token has. The signature is noise: Graph tells clients not to look inside, and
/// the simulator knows its tokens by heart.
pub(super) fn looks_like_a_jwt(claims: &serde_json::Value) -> String {
    let header = json!({"typ": "JWT", "alg": "RS256", "kid": "simulated"}).to_string();
    let noise: Vec<u8> = (0..16).flat_map(|_| *Uuid::new_v4().as_bytes()).collect();
    [header.as_bytes(), claims.to_string().as_bytes(), &noise].map(base64url).join(".")
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// `None` for what is not base64url without padding.
pub(super) fn from_base64url(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for chunk in text.as_bytes().chunks(4) {
        let mut bits = 0_u32;
        for at in 0..4 {
            let value = match chunk.get(at) {
                Some(letter) => ALPHABET.iter().position(|known| known == letter)?,
                None => 0,
            };
            bits = bits << 6 | u32::try_from(value).ok()?;
        }
        // Two letters make a byte, three make two; one alone makes none.
        let made = chunk.len().checked_sub(1).filter(|made| *made > 0)?;
        bytes.extend_from_slice(bits.to_be_bytes().get(1..=made)?);
    }
    Some(bytes)
}

pub(super) fn base64url(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = (0..3).fold(0_u32, |bits, at| bits << 8 | u32::from(chunk.get(at).copied().unwrap_or(0)));
        for at in 0..=chunk.len() {
            text.push(char::from(ALPHABET[(bits >> (18 - 6 * at) & 63) as usize]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64url_is_that_of_rfc_4648_without_padding() {
        for (bytes, text) in
            [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foob", "Zm9vYg"), ("\u{7ff}?", "378_")]
        {
            assert_eq!(base64url(bytes.as_bytes()), text);
            assert_eq!(from_base64url(text).as_deref(), Some(bytes.as_bytes()));
        }
        for text in ["Z", "Zg==", "Zm9vY", "Z+"] {
            assert_eq!(from_base64url(text), None, "{text}");
        }
    }
}
