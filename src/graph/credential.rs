//! An app-only token by client secret, kept until shortly before it expires.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use url::Url;

use super::http;
use crate::clock::BootInstant;
use crate::config::Tenant;
use crate::domain::printable::printable;

/// No token, and so no call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Entra ID says no: credentials are wrong or expired. Trying again helps only once somebody mends them.
    #[error("no token: {0}")]
    Refused(String),
    /// Entra ID cannot be reached, or is not well.
    #[error("no token: {0}")]
    Unavailable(String),
}

/// A token that no output can show.
#[derive(Clone)]
pub(super) struct Token {
    pub(super) text: String,
    renew_at: BootInstant,
    expires_at: BootInstant,
    /// It was obtained because the one before it was refused.
    pub(super) renewed: bool,
}

/// Where a tenant's tokens come from.
pub(super) struct Credential {
    http: reqwest::Client,
    endpoint: Url,
    client_id: String,
    secret_file: PathBuf,
    scope: String,
    state: Mutex<State>,
    /// One request for a token at a time.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    token: Option<Token>,
    last_was_refused: bool,
}

/// A token is renewed this long before it expires (or half its life, if that is shorter), so that it lives through the
/// call it is used for.
const RENEW_BEFORE: Duration = Duration::from_mins(5);

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    expires_in: u64,
}

#[derive(Deserialize)]
struct TokenRefusal {
    error: String,
    #[serde(default)]
    error_description: String,
}

impl Credential {
    pub(super) fn new(http: reqwest::Client, tenant: &Tenant) -> Result<Self, url::ParseError> {
        let base = tenant.authority_url.as_str().trim_end_matches('/');
        let graph = tenant.graph_url.as_str().trim_end_matches('/');
        Ok(Self {
            http,
            endpoint: Url::parse(&format!("{base}/{}/oauth2/v2.0/token", tenant.tenant_id))?,
            client_id: tenant.client_id.clone(),
            secret_file: tenant.client_secret_file.clone(),
            scope: format!("{graph}/.default"),
            state: Mutex::default(),
            fetching: tokio::sync::Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A token that will do for a call, if one is at hand.
    pub(super) fn at_hand(&self) -> Option<Token> {
        self.state().token.clone().filter(|token| !token.renew_at.remaining().is_zero())
    }

    /// A token: the one at hand, or a new one. A failed renewal does not throw away a token that is still good.
    pub(super) async fn token(&self) -> Result<Token, TokenError> {
        let _one_at_a_time = self.fetching.lock().await;
        if let Some(token) = self.at_hand() {
            return Ok(token);
        }
        match self.fetch().await {
            Ok((text, lifetime)) => {
                let mut state = self.state();
                let now = BootInstant::now();
                let token = Token {
                    text,
                    renew_at: now.plus(lifetime.saturating_sub(RENEW_BEFORE.min(lifetime / 2))),
                    expires_at: now.plus(lifetime),
                    renewed: std::mem::take(&mut state.last_was_refused),
                };
                state.token = Some(token.clone());
                Ok(token)
            }
            Err(error) => {
                let still_good = self.state().token.clone().filter(|token| !token.expires_at.remaining().is_zero());
                still_good.ok_or(error)
            }
        }
    }

    /// Graph answered 401 to this token: it is not used again.
    pub(super) fn refused(&self, token: &Token) {
        let mut state = self.state();
        if state.token.as_ref().is_some_and(|held| held.text == token.text) {
            state.token = None;
            state.last_was_refused = true;
        }
    }

    /// Graph took this token: the next refusal is a first one again.
    pub(super) fn accepted(&self, token: &Token) {
        if let Some(held) = self.state().token.as_mut().filter(|held| held.text == token.text) {
            held.renewed = false;
        }
    }

    async fn fetch(&self) -> Result<(String, Duration), TokenError> {
        let secret = read_secret(&self.secret_file).await?;
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", &self.client_id),
            ("client_secret", &secret),
            ("scope", &self.scope),
        ];
        let host = self.endpoint.host_str().unwrap_or_default();
        let unreachable = |why: String| TokenError::Unavailable(format!("{host} cannot be reached: {why}"));
        let response = self
            .http
            .post(self.endpoint.clone())
            .form(&form)
            .send()
            .await
            .map_err(|e| unreachable(http::explain(&e)))?;
        let status = response.status();
        let body = http::read_body(response).await;
        if status.is_success() {
            let answer: TokenAnswer = serde_json::from_slice(&body.bytes)
                .map_err(|_| TokenError::Unavailable(format!("{host} answered HTTP {status} without a token")))?;
            return Ok((answer.access_token, Duration::from_secs(answer.expires_in)));
        }
        match serde_json::from_slice::<TokenRefusal>(&body.bytes) {
            Ok(refusal) if status.is_client_error() && status.as_u16() != 429 => Err(TokenError::Refused(format!(
                "{host} refuses client_id {} ({}: {}): check tenant_id, client_id and the secret in {}",
                self.client_id,
                printable(&refusal.error, 60),
                printable(refusal.error_description.lines().next().unwrap_or_default(), 300)
                    .to_string()
                    .replace(&secret, "…"),
                self.secret_file.display()
            ))),
            _ => Err(TokenError::Unavailable(format!("{host} answered HTTP {status}"))),
        }
    }
}

/// The file's text without the line end that editors leave. Read at each renewal, so a changed secret is taken up.
async fn read_secret(path: &Path) -> Result<String, TokenError> {
    let refused = |why: String| TokenError::Refused(format!("client_secret_file {}: {why}", path.display()));
    let secret = tokio::fs::read_to_string(path).await.map_err(|error| refused(error.to_string()))?;
    let secret = secret.trim_end_matches(['\r', '\n']);
    if secret.is_empty() { Err(refused("the file is empty".to_owned())) } else { Ok(secret.to_owned()) }
}
