//! A client assertion: a JWT that says who the app is, as Entra ID's page "certificate credentials" describes it.

use azure_core::base64::encode_url_safe;
use azure_core::credentials::Secret;
use azure_core::http::ClientMethodOptions;
use azure_identity::ClientAssertion;
use chrono::{DateTime, TimeDelta, Utc};
use ring::rand::SystemRandom;
use ring::signature::RSA_PSS_SHA256;
use serde_json::json;

use crate::config::ClientCertificate;
use crate::domain::id::CallId;

/// How long an assertion is good for. The page asks for five to ten minutes at most; it is used at once.
const VALID_FOR: TimeDelta = TimeDelta::minutes(5);

/// An assertion that is ready: a certificate's, or the token of another identity provider.
#[derive(Debug)]
pub(super) struct Ready(pub(super) Secret);

#[async_trait::async_trait]
impl ClientAssertion for Ready {
    async fn secret(&self, _: Option<ClientMethodOptions<'_>>) -> azure_core::Result<String> {
        Ok(self.0.secret().to_owned())
    }
}

/// Signs an assertion by `client_id` for `endpoint`; `None` if the key will not sign.
pub(super) fn sign(
    certificate: &ClientCertificate,
    endpoint: &str,
    client_id: &str,
    now: DateTime<Utc>,
) -> Option<String> {
    let header = json!({"alg": "PS256", "typ": "JWT", "x5t#S256": unpadded(&certificate.thumbprint)});
    let claims = json!({
        "aud": endpoint, "iss": client_id, "sub": client_id, "jti": CallId::fresh().to_string(),
        "nbf": now.timestamp(), "iat": now.timestamp(), "exp": (now + VALID_FOR).timestamp(),
    });
    let signed = [header, claims].map(|part| unpadded(part.to_string().as_bytes())).join(".");
    let mut signature = vec![0; certificate.key.public().modulus_len()];
    certificate.key.sign(&RSA_PSS_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).ok()?;
    Some(format!("{signed}.{}", unpadded(&signature)))
}

/// Base64url as a JWT has it: without padding.
fn unpadded(bytes: &[u8]) -> String {
    encode_url_safe(bytes).trim_end_matches('=').to_owned()
}
