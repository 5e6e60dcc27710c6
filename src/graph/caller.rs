//! One HTTP request to Graph with the tenant's token: a POST behind its fence, or a GET; and what came of it.

use std::sync::{Arc, OnceLock};

use chrono::{DateTime, Utc};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderMap, RETRY_AFTER};
use url::Url;

use super::credential::{Token, TokenKeeper};
use super::{Fence, TokenError, http, wire};
use crate::domain::answer::{Body, Evidence, Exchange, GraphError, HttpAnswer};
use crate::domain::id::CallId;
use crate::domain::printable::printable;
use crate::failpoint;

/// Characters of an answer's body that are kept as evidence.
const MAX_EVIDENCE_CHARS: usize = 64 * 1024;

/// Characters of a header or of one of Graph's sentences that are kept.
const MAX_SENTENCE_CHARS: usize = 1000;

/// One tenant's way to Graph.
pub(super) struct Caller {
    http: reqwest::Client,
    base: String,
    pub(super) credential: TokenKeeper,
}

/// An answer as it came, without the token, should a proxy have echoed it.
pub(super) struct Answer {
    pub(super) status: u16,
    retry_after: Option<String>,
    /// Graph's clock.
    pub(super) date: Option<DateTime<Utc>>,
    pub(super) request_id: Option<String>,
    bytes: Vec<u8>,
    /// Why `bytes` are not all of it.
    cut: Option<String>,
    /// The token was a fresh one, obtained because the one before it was refused.
    pub(super) renewed_token: bool,
}

/// A read that gave nothing to read.
#[derive(Clone)]
pub(super) struct Unread {
    /// Why.
    pub(super) reason: String,
    /// The answer, where there was one.
    pub(super) answer: Option<Box<HttpAnswer>>,
}

impl Caller {
    /// `base` has no trailing slash.
    pub(super) fn new(http: reqwest::Client, base: String, credential: TokenKeeper) -> Self {
        Self { http, base, credential }
    }

    /// A path below the base URL, whole.
    pub(super) fn url(&self, path: &str) -> Result<Url, url::ParseError> {
        Url::parse(&format!("{}{path}", self.base))
    }

    /// Posts once. Without an answer: what is known all the same.
    pub(super) async fn post(&self, path: &str, call: CallId, body: Vec<u8>, fence: Fence) -> Result<Answer, Exchange> {
        let token = self.credential.token().await.map_err(|error| not_sent(error.to_string()))?;
        let url = self.url(path).map_err(|error| not_sent(format!("graph_url: {error}")))?;
        let verdict = Arc::new(OnceLock::new());
        let request = self
            .http
            .post(url)
            .bearer_auth(&token.text)
            .header(CONTENT_TYPE, "application/json")
            .header(CONTENT_LENGTH, body.len())
            .header("client-request-id", call.to_string())
            .body(fenced(body, fence, Arc::clone(&verdict)));
        let error = match request.send().await {
            Ok(response) => return Ok(self.answered(response, &token).await),
            Err(error) => error,
        };
        // Whoever says first whether it may leave is heard: the connection, a task of its own that can outlive the request, finds
        // this and sends nothing. Without its body a request cannot be carried out, whatever was written of its head.
        if let Err(reason) = verdict.get_or_init(|| Err(http::explain(&error))) {
            return Err(not_sent(reason.clone()));
        }
        Err(Exchange::Lost { reason: format!("no answer: {}", http::explain(&error)) })
    }

    /// Reads `url`, which is Graph's own.
    pub(super) async fn get(&self, url: Url) -> Result<Answer, Unread> {
        let unread = |reason| Unread { reason, answer: None };
        let token = self.credential.token().await.map_err(|error: TokenError| unread(error.to_string()))?;
        let request =
            self.http.get(url).bearer_auth(&token.text).header("client-request-id", CallId::fresh().to_string());
        let response = request.send().await.map_err(|error| unread(http::explain(&error)))?;
        let answer = self.answered(response, &token).await;
        if (200..300).contains(&answer.status) {
            return if answer.cut.is_none() { Ok(answer) } else { Err(answer.unreadable("")) };
        }
        let code = answer.error().map(|error| format!(" {}", printable(&error.code, 100))).unwrap_or_default();
        let reason = format!("HTTP {}{code}", answer.status);
        Err(Unread { reason, answer: Some(Box::new(answer.http(Body::NoBuckets(String::new())))) })
    }

    async fn answered(&self, response: reqwest::Response, token: &Token) -> Answer {
        let status = response.status().as_u16();
        match status {
            401 => self.credential.refused(token),
            _ => self.credential.accepted(token),
        }
        let header = |name: &str| header(response.headers(), name);
        let (request_id, retry_after) = (header("request-id"), header(RETRY_AFTER.as_str()));
        let date = header(DATE.as_str()).and_then(|date| httpdate::parse_http_date(&date).ok()).map(Into::into);
        let read = http::read_body(response).await;
        // A proxy that echoes the request must not get the token into the database.
        let bytes = match std::str::from_utf8(&read.bytes) {
            Ok(text) if text.contains(&token.text) => text.replace(&token.text, "[token]").into_bytes(),
            Ok(_) => read.bytes,
            Err(_) => String::from_utf8_lossy(&read.bytes).replace(&token.text, "[token]").into_bytes(),
        };
        Answer { status, retry_after, date, request_id, bytes, cut: read.cut, renewed_token: token.renewed }
    }
}

impl Answer {
    /// The body, where all of it came: half a list looks like a list.
    pub(super) fn whole(&self) -> Result<&[u8], String> {
        self.cut.as_ref().map_or(Ok(&self.bytes), |cut| Err(cut.clone()))
    }

    /// Graph's error object, if the body is one.
    pub(super) fn error(&self) -> Option<GraphError> {
        let error = wire::error(self.whole().ok()?)?;
        let sentence = |text: &str| printable(text, MAX_SENTENCE_CHARS).to_string();
        Some(GraphError { code: sentence(&error.code), message: sentence(&error.message) })
    }

    /// What decides, with the body as the action reads it.
    pub(super) fn http(&self, body: Body) -> HttpAnswer {
        HttpAnswer {
            status: self.status,
            retry_after: self.retry_after.clone(),
            date: self.date,
            error: self.error(),
            body,
        }
    }

    /// What is kept.
    pub(super) fn evidence(&self) -> Evidence {
        let error = self.error();
        let text = String::from_utf8_lossy(&self.bytes);
        Evidence {
            http_status: Some(self.status),
            graph_request_id: self.request_id.clone(),
            graph_date: self.date,
            error_code: error.as_ref().map(|error| error.code.clone()),
            error_message: error.map(|error| error.message).or_else(|| self.cut.clone()),
            response_body: Some(text.chars().take(MAX_EVIDENCE_CHARS).collect()),
        }
    }

    /// A read whose body says nothing.
    pub(super) fn unreadable(&self, why: &str) -> Unread {
        let why = self.cut.as_deref().unwrap_or(why);
        Unread { reason: format!("HTTP {}: {why}", self.status), answer: None }
    }
}

/// What is kept of an exchange without an answer.
pub(super) fn evidence_of(exchange: &Exchange) -> Evidence {
    let (code, reason) = match exchange {
        Exchange::NotSent { reason } => ("not_sent", reason),
        Exchange::Lost { reason } => ("lost", reason),
        Exchange::Answered(_) => return Evidence::default(),
    };
    Evidence { error_code: Some(code.to_owned()), error_message: Some(reason.clone()), ..Evidence::default() }
}

fn not_sent(reason: String) -> Exchange {
    Exchange::NotSent { reason }
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

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?;
    Some(printable(&String::from_utf8_lossy(value.as_bytes()), MAX_SENTENCE_CHARS).to_string())
}
