//! The app's credentials: secret, certificate, another provider's token, and the secret of the metadata endpoint. All are made
//! anew with each simulator, but for the RSA key.

use chrono::{DateTime, TimeDelta, Utc};
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::json;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::token::{base64url, looks_like_a_jwt};

/// Known to everybody, and good for nothing but a simulator: ring signs with RSA keys and makes none, and to bring another
/// library for it would be a second cryptography in the program. What tells one certificate from the next is its thumbprint.
const APP_KEY: &str = include_str!("app-key.pem");

/// Who vouches for the workload, as in a cluster.
pub(super) const ISSUER: &str = "https://oidc.simulator.example/";
/// The workload that the app trusts.
pub(super) const SUBJECT: &str = "system:serviceaccount:default:reprovisiond";
/// What a federated credential expects its tokens to be for.
pub(super) const AUDIENCE: &str = "api://AzureADTokenExchange";

#[derive(Debug)]
pub(super) struct Credentials {
    pub(super) secret: String,
    pub(super) certificate: Certificate,
    pub(super) federated_token: String,
    /// What App Service gives its processes in `IDENTITY_HEADER`.
    pub(super) identity_header: String,
}

#[derive(Debug)]
pub(super) struct Certificate {
    /// With its private key.
    pub(super) pem: String,
    /// SHA-256 of its DER, base64url.
    pub(super) thumbprint: String,
    /// An RSAPublicKey in DER.
    pub(super) public_key: Vec<u8>,
}

impl Credentials {
    pub(super) fn fresh(client_id: Uuid, now: DateTime<Utc>) -> Result<Self, rcgen::Error> {
        let secret = || format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        let key = KeyPair::from_pem(APP_KEY)?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, format!("{client_id} {}", Uuid::new_v4()));
        let certificate = params.self_signed(&key)?;
        Ok(Self {
            secret: secret(),
            certificate: Certificate {
                pem: format!("{}{APP_KEY}", certificate.pem()),
                thumbprint: base64url(&Sha256::digest(certificate.der())),
                public_key: rcgen::PublicKeyData::der_bytes(&key).to_vec(),
            },
            federated_token: looks_like_a_jwt(&json!({
                "iss": ISSUER, "sub": SUBJECT, "aud": [AUDIENCE], "jti": Uuid::new_v4(),
                "iat": now.timestamp(), "nbf": now.timestamp(), "exp": (now + TimeDelta::days(365)).timestamp(),
            })),
            identity_header: secret(),
        })
    }
}
