//! One call to Graph: the request, the answer, the evidence.

use std::fmt::Write as _;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderMap, RETRY_AFTER};
use sha2::{Digest, Sha256};
use url::Url;

use super::credential::{Token, TokenKeeper};
use super::http::Proxy;
use super::{Fence, Graph, Reply, TokenError, http, wire};
use crate::config::{Credential, Tenant};
use crate::domain::answer::{Body, Evidence, Exchange, HttpAnswer, retry_after};
use crate::domain::id::{CallId, ManagedDeviceId};
use crate::domain::printable::printable;
use crate::domain::read_back::{ReadBack, Seen};
use crate::failpoint;

/// Characters of an answer's body that are kept as evidence.
const MAX_EVIDENCE_CHARS: usize = 64 * 1024;

/// Characters of a header or of one of Graph's sentences that are kept.
const MAX_SENTENCE_CHARS: usize = 1000;

/// One tenant's Graph.
pub struct GraphClient {
    http: reqwest::Client,
    base: String,
    action_url: Url,
    credential: TokenKeeper,
}

/// A client that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Graph's URL does not take a path.
    #[error("graph_url: {0}")]
    Url(#[from] url::ParseError),
    /// TLS could not be set up, for instance because the system has no root certificates.
    #[error("the HTTPS client could not be set up: {0}")]
    Http(String),
}

impl GraphClient {
    /// A client for `tenant` whose calls take `call_timeout` at most.
    pub fn new(tenant: &Tenant, call_timeout: Duration) -> Result<Self, ClientError> {
        let no_client = |error| ClientError::Http(http::explain(&error));
        let http = http::client(call_timeout, Proxy::OfTheSystem).map_err(no_client)?;
        // The endpoint that hands out a managed identity's tokens is on the host itself: no proxy is to see them.
        let proxy = match tenant.credential {
            Credential::ManagedIdentity { .. } => Proxy::None,
            _ => Proxy::OfTheSystem,
        };
        let for_tokens = http::client(call_timeout, proxy).map_err(no_client)?;
        let base = tenant.graph_url.as_str().trim_end_matches('/');
        Ok(Self {
            action_url: Url::parse(&format!("{base}{}", wire::ACTION_PATH))?,
            base: base.to_owned(),
            credential: TokenKeeper::new(for_tokens, tenant),
            http,
        })
    }

    /// The application permissions in the token's `roles` claim; `None` if the token cannot be read.
    pub async fn token_roles(&self) -> Result<Option<Vec<String>>, TokenError> {
        self.credential.roles().await
    }

    async fn call(&self, call: CallId, body: Vec<u8>, token: &Token, fence: Fence) -> (Exchange, Evidence) {
        let verdict = Arc::new(OnceLock::new());
        let request = self
            .http
            .post(self.action_url.clone())
            .bearer_auth(&token.text)
            .header(CONTENT_TYPE, "application/json")
            .header(CONTENT_LENGTH, body.len())
            .header("client-request-id", call.to_string())
            .body(fenced(body, fence, Arc::clone(&verdict)));
        let error = match request.send().await {
            Ok(response) => return answered(response, token).await,
            Err(error) => error,
        };
        // Whoever says first whether it may leave is heard: the connection, a task of its own that can outlive the request, finds
        // this and sends nothing. Without its body a request cannot be carried out, whatever was written of its head.
        if let Err(reason) = verdict.get_or_init(|| Err(http::explain(&error))) {
            return not_sent(reason.clone());
        }
        let reason = format!("no answer: {}", http::explain(&error));
        (Exchange::Lost { reason: reason.clone() }, transport("lost", reason))
    }
}

#[async_trait]
impl Graph for GraphClient {
    fn has_token(&self) -> bool {
        self.credential.at_hand().is_some()
    }

    async fn prepare(&self) -> Result<(), TokenError> {
        self.credential.token().await.map(|_| ())
    }

    fn digest(&self, devices: &[ManagedDeviceId]) -> String {
        let digest = Sha256::digest(wire::request_body(devices));
        digest.iter().fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    async fn reprovision(&self, call: CallId, devices: &[ManagedDeviceId], fence: Fence) -> Reply {
        let token = match self.credential.token().await {
            Ok(token) => token,
            Err(error) => {
                let (exchange, evidence) = not_sent(error.to_string());
                return Reply { exchange, evidence, renewed_token: false };
            }
        };
        let (exchange, evidence) = self.call(call, wire::request_body(devices), &token, fence).await;
        match evidence.http_status {
            Some(401) => self.credential.refused(&token),
            Some(_) => self.credential.accepted(&token),
            None => {}
        }
        Reply { exchange, evidence, renewed_token: token.renewed }
    }

    async fn remote_actions(&self, device: ManagedDeviceId) -> ReadBack {
        let failed = |reason: String, retry_after| ReadBack::Failed { reason, retry_after };
        let token = match self.credential.token().await {
            Ok(token) => token,
            Err(error) => return failed(error.to_string(), None),
        };
        let Ok(url) = Url::parse(&format!("{}{}", self.base, wire::read_back_path(device))) else {
            return failed("graph_url does not take a path".to_owned(), None);
        };
        let request =
            self.http.get(url).bearer_auth(&token.text).header("client-request-id", CallId::fresh().to_string());
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return failed(http::explain(&error), None),
        };
        let status = response.status();
        let date = header(response.headers(), DATE.as_str()).and_then(|date| httpdate::parse_http_date(&date).ok());
        let retry_after = header(response.headers(), RETRY_AFTER.as_str())
            .and_then(|text| retry_after(&text, date.map_or(DateTime::UNIX_EPOCH, Into::into)));
        let graph_request_id = header(response.headers(), "request-id");
        if status.as_u16() == 401 {
            self.credential.refused(&token);
        }
        let body = http::read_body(response).await;
        match wire::remote_actions(&body.bytes) {
            Ok(actions) if status.is_success() && body.cut.is_none() => {
                ReadBack::Seen(Seen { actions, read_at: date.map(Into::into), graph_request_id })
            }
            Err(why) if status.is_success() => failed(format!("HTTP {}: {why}", status.as_u16()), retry_after),
            _ => {
                let code = wire::error(&body.bytes).map(|error| format!(" {}", printable(&error.code, 100)));
                failed(format!("HTTP {}{}", status.as_u16(), code.unwrap_or_default()), retry_after)
            }
        }
    }
}

/// What the fence said, or that the request was over before it was asked: the first of the two, for good.
type Verdict = Arc<OnceLock<Result<(), String>>>;

/// A body that asks `fence` when the connection takes it: name, connection and TLS lie behind then, and nothing else lies
/// between the answer and the bytes.
fn fenced(body: Vec<u8>, fence: Fence, verdict: Verdict) -> reqwest::Body {
    reqwest::Body::wrap_stream(futures_util::stream::once(async move {
        failpoint::reach("before-check");
        let said = fence();
        let open = said.is_ok();
        if verdict.set(said).is_err() || !open {
            return Err(std::io::Error::other("the call is dropped before it is sent"));
        }
        failpoint::reach("before-write");
        failpoint::reach_soon("after-write");
        Ok(body)
    }))
}

fn not_sent(reason: String) -> (Exchange, Evidence) {
    (Exchange::NotSent { reason: reason.clone() }, transport("not_sent", reason))
}

fn transport(code: &str, reason: String) -> Evidence {
    Evidence { error_code: Some(code.to_owned()), error_message: Some(reason), ..Evidence::default() }
}

async fn answered(response: reqwest::Response, token: &Token) -> (Exchange, Evidence) {
    let status = response.status().as_u16();
    let header = |name: &str| header(response.headers(), name);
    let (request_id, retry_after) = (header("request-id"), header(RETRY_AFTER.as_str()));
    let date: Option<DateTime<Utc>> =
        header(DATE.as_str()).and_then(|date| httpdate::parse_http_date(&date).ok()).map(Into::into);
    let read = http::read_body(response).await;

    // What is not whole is not read: half a list looks like a list.
    let error = if read.cut.is_none() { wire::error(&read.bytes) } else { None };
    let body = match &read.cut {
        None => wire::buckets(&read.bytes),
        Some(cut) => Body::NoBuckets(cut.clone()),
    };
    // A proxy that echoes the request must not get the token into the database.
    let text = String::from_utf8_lossy(&read.bytes).replace(&token.text, "[token]");
    let sentence = |text: &str| printable(text, MAX_SENTENCE_CHARS).to_string();
    let evidence = Evidence {
        http_status: Some(status),
        graph_request_id: request_id,
        graph_date: date,
        error_code: error.as_ref().map(|error| sentence(&error.code)),
        error_message: error
            .as_ref()
            .map(|error| sentence(&error.message.replace(&token.text, "[token]")))
            .or(read.cut),
        response_body: Some(text.chars().take(MAX_EVIDENCE_CHARS).collect()),
    };
    let error = error.map(|mut error| {
        error.code = sentence(&error.code);
        error.message = sentence(&error.message.replace(&token.text, "[token]"));
        error
    });
    (Exchange::Answered(HttpAnswer { status, retry_after, date, error, body }), evidence)
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?;
    Some(printable(&String::from_utf8_lossy(value.as_bytes()), MAX_SENTENCE_CHARS).to_string())
}
