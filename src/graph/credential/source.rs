//! Where a token comes from: one of Microsoft's credentials, made anew for each token from files read at that moment.
//!
//! So a secret, certificate or token that has been changed is taken up by the next attempt, and nothing of the SDK's own cache
//! remains: it would neither know of a token that Graph has refused, nor keep a good one when its renewal fails.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use azure_core::credentials::{AccessToken, Secret, TokenCredential};
use azure_core::http::{ClientOptions, RetryOptions, Transport as SdkTransport};
use azure_identity::{
    ClientAssertionCredential, ClientAssertionCredentialOptions, ClientSecretCredential, ClientSecretCredentialOptions,
    ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId,
};
use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use tracing::warn;

use super::TokenError;
use super::assertion::{self, Ready};
use super::transport::{AUTHORITY, Answer, Seen, Transport};
use crate::clock::host_time;
use crate::config::{ClientCertificate, Credential, Tenant};
use crate::domain::printable::printable;

/// A certificate that expires within this time is warned of, at each token.
const EXPIRES_SOON: TimeDelta = TimeDelta::days(30);

/// A tenant's way to a token.
pub(super) struct Source {
    http: reqwest::Client,
    /// Base URL of Entra ID, without a slash at its end.
    authority: String,
    tenant_id: String,
    scope: String,
    credential: Credential,
}

/// A refusal in the shapes of Entra ID and the metadata endpoint (the first two) and of App Service (the last).
#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    error: String,
    #[serde(default)]
    error_description: String,
    #[serde(default)]
    message: String,
}

/// What a fetch needs to know beside the SDK's credential.
struct Prepared {
    credential: Arc<dyn TokenCredential>,
    /// What must be in no message.
    hidden: String,
    /// What to look at after a refusal.
    check: String,
}

impl Source {
    pub(super) fn new(http: reqwest::Client, tenant: &Tenant) -> Self {
        let graph = tenant.graph_url.as_str().trim_end_matches('/');
        Self {
            http,
            authority: tenant.authority_url.as_str().trim_end_matches('/').to_owned(),
            tenant_id: tenant.tenant_id.clone(),
            // A managed identity is asked for the same without "/.default": its resource is Graph's base URL.
            scope: format!("{graph}/.default"),
            credential: tenant.credential.clone(),
        }
    }

    /// A new token and how long it is good for.
    pub(super) async fn fetch(&self) -> Result<(String, Duration), TokenError> {
        let transport = Arc::new(Transport::new(self.http.clone(), &self.authority));
        let prepared = self.prepare(&transport).await?;
        match prepared.credential.get_token(&[&self.scope], None).await {
            Ok(token) => taken(&token, transport.seen().as_ref()),
            Err(error) => Err(match transport.seen() {
                Some(seen) => self.refused(&seen, &prepared),
                // Nothing was sent: what the SDK will not even try.
                None => self.impossible(&error),
            }),
        }
    }

    async fn prepare(&self, transport: &Arc<Transport>) -> Result<Prepared, TokenError> {
        let client_options = || {
            let mut cloud = CustomConfiguration::default();
            AUTHORITY.clone_into(&mut cloud.authority_host);
            ClientOptions {
                cloud: Some(Arc::new(CloudConfiguration::from(cloud))),
                transport: Some(SdkTransport::new(Arc::clone(transport) as _)),
                // The engine is the one owner of retries.
                retry: RetryOptions::none(),
                ..ClientOptions::default()
            }
        };
        let by_assertion = |client_id: &str, assertion: String| {
            // The SDK's own credential for workload identity is this one with a file that it reads by itself, blocking, its line
            // end included, and again only after ten minutes.
            ClientAssertionCredential::new(
                self.tenant_id.clone(),
                client_id.to_owned(),
                Ready(Secret::new(assertion)),
                Some(ClientAssertionCredentialOptions { client_options: client_options() }),
            )
        };
        match &self.credential {
            Credential::ClientSecret { client_id, file } => {
                let secret = read("client_secret_file", file).await?;
                let options = ClientSecretCredentialOptions { client_options: client_options() };
                let made = ClientSecretCredential::new(
                    &self.tenant_id,
                    client_id.clone(),
                    Secret::new(secret.clone()),
                    Some(options),
                );
                Ok(Prepared {
                    credential: made.map_err(|error| self.impossible(&error))?,
                    hidden: secret,
                    check: format!("check tenant_id, client_id and the secret in {}", file.display()),
                })
            }
            Credential::Certificate { client_id, file } => {
                let (certificate, until) = certificate(file).await?;
                let endpoint = format!("{}/{}/oauth2/v2.0/token", self.authority, self.tenant_id);
                let assertion = assertion::sign(&certificate, &endpoint, client_id, host_time())
                    .ok_or_else(|| unusable("certificate_file", file, "its key does not sign"))?;
                let made = by_assertion(client_id, assertion.clone()).map_err(|error| self.impossible(&error))?;
                Ok(Prepared {
                    credential: made,
                    hidden: assertion,
                    check: format!(
                        "check tenant_id and client_id, and that the certificate in {}{until} is registered with the app",
                        file.display()
                    ),
                })
            }
            Credential::WorkloadIdentity { client_id, file } => {
                let token = read("federated_token_file", file).await?;
                let made = by_assertion(client_id, token.clone()).map_err(|error| self.impossible(&error))?;
                Ok(Prepared {
                    credential: made,
                    hidden: token,
                    check: format!(
                        "check tenant_id and client_id, and that a federated credential of the app names issuer, subject and \
                         audience of the token in {}",
                        file.display()
                    ),
                })
            }
            Credential::ManagedIdentity { client_id } => {
                let options = ManagedIdentityCredentialOptions {
                    user_assigned_id: client_id.clone().map(UserAssignedId::ClientId),
                    client_options: client_options(),
                };
                let made = ManagedIdentityCredential::new(Some(options)).map_err(|error| self.impossible(&error))?;
                let check = match client_id {
                    Some(_) => "check that this identity is assigned to the resource that the daemon runs on",
                    None => {
                        "check that the resource that the daemon runs on has a system-assigned identity, or name a \
                         user-assigned one by client_id"
                    }
                };
                Ok(Prepared { credential: made, hidden: String::new(), check: check.to_owned() })
            }
        }
    }

    fn refused(&self, seen: &Seen, prepared: &Prepared) -> TokenError {
        let host = &seen.host;
        let (status, body) = match &seen.answer {
            Answer::None(why) => {
                let hint = match &self.credential {
                    Credential::ManagedIdentity { .. } => ": only an Azure resource has a managed identity",
                    _ => "",
                };
                return TokenError::Unavailable(format!("{host} {why}{hint}"));
            }
            Answer::Whole(status, body) => (*status, body),
        };
        // A metadata endpoint that is being updated answers these two for a while.
        let passing = matches!((&self.credential, status), (Credential::ManagedIdentity { .. }, 404 | 410));
        match serde_json::from_slice::<Refusal>(body) {
            Ok(refusal) if (400..500).contains(&status) && status != 429 && !passing => {
                let (code, text) = match refusal.error.as_str() {
                    "" if refusal.message.is_empty() => return unwell(host, status),
                    "" => (status.to_string(), &refusal.message),
                    code => (code.to_owned(), &refusal.error_description),
                };
                let mut sentence = text.lines().next().unwrap_or_default().to_owned();
                if !prepared.hidden.is_empty() {
                    sentence = sentence.replace(&prepared.hidden, "…");
                }
                TokenError::Refused(format!(
                    "{host} refuses {} ({}: {}): {}",
                    self.who(),
                    printable(&code, 60),
                    printable(&sentence, 300),
                    prepared.check
                ))
            }
            _ => unwell(host, status),
        }
    }

    fn impossible(&self, error: &azure_core::Error) -> TokenError {
        let said = error.to_string();
        let line = printable(said.lines().next().unwrap_or_default(), 300).to_string();
        TokenError::Refused(format!("{} cannot sign in: {line}", self.who()))
    }

    fn who(&self) -> String {
        match &self.credential {
            Credential::ClientSecret { client_id, .. }
            | Credential::Certificate { client_id, .. }
            | Credential::WorkloadIdentity { client_id, .. }
            | Credential::ManagedIdentity { client_id: Some(client_id) } => format!("client_id {client_id}"),
            Credential::ManagedIdentity { client_id: None } => "the system-assigned identity".to_owned(),
        }
    }
}

/// The SDK's token, if it can be used.
fn taken(token: &AccessToken, seen: Option<&Seen>) -> Result<(String, Duration), TokenError> {
    let host = seen.map_or("Entra ID", |seen| seen.host.as_str());
    let text = token.token.secret();
    if text.is_empty() {
        return Err(without_a_token(host, 200));
    }
    let expires = DateTime::<Utc>::from_timestamp(token.expires_on.unix_timestamp(), 0).unwrap_or_default();
    match (expires - host_time()).to_std() {
        Ok(lifetime) if !lifetime.is_zero() => Ok((text.to_owned(), lifetime)),
        _ => Err(TokenError::Unavailable(format!(
            "{host} gave a token that expired at {expires:?}: set this host's clock if it is wrong"
        ))),
    }
}

fn unwell(host: &str, status: u16) -> TokenError {
    if (200..300).contains(&status) {
        without_a_token(host, status)
    } else {
        TokenError::Unavailable(format!("{host} answered HTTP {status}"))
    }
}

fn without_a_token(host: &str, status: u16) -> TokenError {
    TokenError::Unavailable(format!("{host} answered HTTP {status} without a token"))
}

fn unusable(key: &str, file: &Path, why: impl std::fmt::Display) -> TokenError {
    TokenError::Refused(format!("{key} {}: {why}", file.display()))
}

/// The file's text without the line end that editors leave.
async fn read(key: &str, file: &Path) -> Result<String, TokenError> {
    let text = tokio::fs::read_to_string(file).await.map_err(|error| unusable(key, file, error))?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() { Err(unusable(key, file, "the file is empty")) } else { Ok(text.to_owned()) }
}

/// The certificate, and what a message says of its end if that is near or past.
async fn certificate(file: &Path) -> Result<(ClientCertificate, String), TokenError> {
    const KEY: &str = "certificate_file";
    let pem = tokio::fs::read(file).await.map_err(|error| unusable(KEY, file, error))?;
    let certificate = ClientCertificate::from_pem(&pem).map_err(|why| unusable(KEY, file, why))?;
    let until = match certificate.expires {
        Some(end) if end <= host_time() => format!(", which expired on {},", end.date_naive()),
        Some(end) if end - host_time() < EXPIRES_SOON => {
            warn!(
                file = file.display().to_string(),
                expires = end.date_naive().to_string(),
                "a certificate expires soon: register a new one with the app and put it in the file"
            );
            String::new()
        }
        _ => String::new(),
    };
    Ok((certificate, until))
}
