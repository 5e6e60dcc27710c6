//! An app-only token, kept until shortly before it expires.
//!
//! Microsoft's `azure_identity` asks for it ([`source`]); it is kept here, and not in the SDK's cache, which gives up a token that
//! is still good when its renewal fails, and cannot be told that Graph has refused one.

mod assertion;
mod source;
#[cfg(test)]
mod tests;
mod transport;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use tracing::{info, warn};

use self::source::Source;
use crate::clock::BootInstant;
use crate::config::Tenant;

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

/// A tenant's token, and where the next one comes from.
pub(super) struct TokenKeeper {
    tenant_id: String,
    source: Source,
    state: Mutex<State>,
    /// One request for a token at a time.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    token: Option<Token>,
    last_was_refused: bool,
    /// Which has been logged.
    renewal_fails: bool,
}

/// A token is renewed this long before it expires (or half its life, if that is shorter), so that it lives through the
/// call it is used for.
const RENEW_BEFORE: Duration = Duration::from_mins(5);

/// Time between a renewal that failed and the next one, while the token is still good.
const RENEW_AGAIN_AFTER: Duration = Duration::from_secs(30);

impl TokenKeeper {
    pub(super) fn new(http: reqwest::Client, tenant: &Tenant) -> Self {
        Self {
            tenant_id: tenant.tenant_id.clone(),
            source: Source::new(http, tenant),
            state: Mutex::default(),
            fetching: tokio::sync::Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A token that will do for a call, if one is at hand.
    pub(super) fn at_hand(&self) -> Option<Token> {
        self.state().token.clone().filter(|token| !token.renew_at.remaining().is_zero())
    }

    /// How long the token at hand is good for, whether or not it is to be renewed.
    pub(super) fn good_for(&self) -> Option<Duration> {
        self.state().token.as_ref().map(|token| token.expires_at.remaining()).filter(|rest| !rest.is_zero())
    }

    /// A token: the one at hand, or a new one. A failed renewal does not throw away a token that is still good.
    pub(super) async fn token(&self) -> Result<Token, TokenError> {
        let _one_at_a_time = self.fetching.lock().await;
        if let Some(token) = self.at_hand() {
            return Ok(token);
        }
        match self.source.fetch().await {
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
                if std::mem::take(&mut state.renewal_fails) {
                    info!(tenant_id = self.tenant_id, "the token is renewed");
                }
                Ok(token)
            }
            Err(error) => self.still_good(error),
        }
    }

    /// The token that could not be renewed, if it has not expired: it is at hand again until the next attempt.
    fn still_good(&self, error: TokenError) -> Result<Token, TokenError> {
        let mut state = self.state();
        let Some(token) = state.token.as_mut().filter(|token| !token.expires_at.remaining().is_zero()) else {
            return Err(error);
        };
        token.renew_at = BootInstant::now().plus(RENEW_AGAIN_AFTER).min(token.expires_at);
        let good_for_ms = u64::try_from(token.expires_at.remaining().as_millis()).unwrap_or(u64::MAX);
        let token = token.clone();
        if !std::mem::replace(&mut state.renewal_fails, true) {
            warn!(
                tenant_id = self.tenant_id,
                error = error.to_string(),
                good_for_ms,
                "a token could not be renewed, and is still good; trying again until one can"
            );
        }
        Ok(token)
    }

    /// The permissions that a token carries, for a command that looks whether they suffice; `None` if it cannot be read.
    pub(super) async fn roles(&self) -> Result<Option<Vec<String>>, TokenError> {
        Ok(roles(&self.token().await?.text))
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
}

/// The `roles` claim of an access token: the app's permissions. `None` if the token cannot be read, which Microsoft reserves the
/// right to: the claim is documented, and the signature is Graph's business.
fn roles(token: &str) -> Option<Vec<String>> {
    #[derive(Deserialize)]
    struct Claims {
        #[serde(default)]
        roles: Vec<String>,
    }
    let claims = token.split('.').nth(1)?;
    let padded = format!("{claims}{}", "=".repeat(claims.len().wrapping_neg() % 4));
    let claims = azure_core::base64::decode_url_safe(padded).ok()?;
    serde_json::from_slice::<Claims>(&claims).ok().map(|claims| claims.roles)
}
