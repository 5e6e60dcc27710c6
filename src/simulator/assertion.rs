//! What Entra ID makes of a client assertion: one that the app has signed with its certificate, or another provider's token.

use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, RsaParameters, UnparsedPublicKey};
use serde_json::Value;

use super::answer::Call;
use super::credentials::{AUDIENCE, Certificate, ISSUER, SUBJECT};
use super::token::from_base64url;
use super::{Shared, unpoisoned};

/// How far the app's clock may be from Entra's.
const SKEW_SECONDS: i64 = 300;

/// The AADSTS number of a refusal, and its sentence.
pub(super) type Refusal = (u32, String);

/// Whether `assertion` proves that it comes from `client_id`.
pub(super) fn check(sim: &Shared, call: &Call, client_id: &str, tenant: &str, assertion: &str) -> Result<(), Refusal> {
    let malformed = || (50_027, "JWT token is invalid or malformed.".to_owned());
    let parts: Vec<&str> = assertion.split('.').collect();
    let &[header, claims, signature] = &parts[..] else { return Err(malformed()) };
    let read = |part: &str| from_base64url(part).and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    let (Some(head), Some(body), Some(signature)) = (read(header), read(claims), from_base64url(signature)) else {
        return Err(malformed());
    };
    let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let (issuer, subject) = (text(&body, "iss"), text(&body, "sub"));
    let credentials = unpoisoned(&sim.credentials);

    if issuer.starts_with("https://") {
        if issuer != ISSUER {
            return Err((
                700_211,
                format!("No matching federated identity record found for presented assertion issuer '{issuer}'."),
            ));
        }
        if subject != SUBJECT {
            return Err((
                700_213,
                format!("No matching federated identity record found for presented assertion subject '{subject}'."),
            ));
        }
        if body["aud"] != AUDIENCE && body["aud"][0] != AUDIENCE {
            return Err((
                700_212,
                "No matching federated identity record found for presented assertion audience.".to_owned(),
            ));
        }
        // The simulator is the other provider too, and knows the token that it gave.
        if assertion != credentials.federated_token {
            return Err((50_013, "Assertion failed signature validation.".to_owned()));
        }
    } else {
        verify(&credentials.certificate, &head, &format!("{header}.{claims}"), &signature)?;
        if text(&body, "aud") != format!("{}/{tenant}/oauth2/v2.0/token", sim.base_url) {
            return Err((700_023, "Client assertion audience claim does not match Realm issuer.".to_owned()));
        }
        if !issuer.eq_ignore_ascii_case(client_id) || subject != issuer {
            let message = "Client assertion application identifier doesn't match 'client_id' parameter.";
            return Err((700_021, message.to_owned()));
        }
    }
    let (now, time) = (call.at.timestamp(), |name: &str| body[name].as_i64());
    let in_time = time("exp").is_some_and(|end| now < end + SKEW_SECONDS)
        && time("nbf").is_none_or(|begin| begin <= now + SKEW_SECONDS);
    if in_time { Ok(()) } else { Err((700_024, "Client assertion is not within its valid time range.".to_owned())) }
}

fn verify(certificate: &Certificate, head: &Value, signed: &str, signature: &[u8]) -> Result<(), Refusal> {
    let refuse = |reason: &str| {
        let message = format!("Client assertion contains an invalid signature. [Reason - {reason}]");
        Err((700_027, message))
    };
    let algorithm: &RsaParameters = match head["alg"].as_str() {
        Some("PS256") => &RSA_PSS_2048_8192_SHA256,
        Some("RS256") => &RSA_PKCS1_2048_8192_SHA256,
        _ => return refuse("The algorithm is not supported."),
    };
    let thumbprint = head["x5t#S256"].as_str().unwrap_or_default();
    if thumbprint != certificate.thumbprint {
        return refuse(&format!("The key was not found., Thumbprint of key used by client: '{thumbprint}'"));
    }
    let key = UnparsedPublicKey::new(algorithm, &certificate.public_key);
    match key.verify(signed.as_bytes(), signature) {
        Ok(()) => Ok(()),
        Err(_) => refuse("The provided signature value did not match the expected signature value."),
    }
}
