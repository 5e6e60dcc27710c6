//! The way of Microsoft's SDK to the network: our HTTP client, once, and a record of what came back.

use std::sync::{Mutex, PoisonError};

use azure_core::error::{Error, ErrorKind};
use azure_core::http::headers::Headers;
use azure_core::http::{AsyncRawResponse, Body, HttpClient, Request, StatusCode};
use serde_json::Value;
use url::Url;

use crate::graph::http;

/// The authority that the SDK is told. It insists on HTTPS and drops a path, so that it could neither be given a loopback's
/// `http://` nor a base URL with a path; a name that cannot be looked up, which [`Transport`] replaces by the configured base.
pub(super) const AUTHORITY: &str = "https://authority.invalid";

/// The longest lifetime that is believed: the SDK adds any number of seconds to a time, and would panic where that overflows.
const LONGEST_LIFETIME_SECONDS: u64 = 366 * 24 * 3600;

/// What came of the request for a token.
pub(super) struct Seen {
    /// Whom it was sent to.
    pub(super) host: String,
    pub(super) answer: Answer,
}

pub(super) enum Answer {
    /// None, or half of one, and why.
    None(String),
    /// Status and body.
    Whole(u16, Vec<u8>),
}

/// Carries one request, for one token.
///
/// Only a success goes back to the SDK. Anything else is kept here and ends the attempt as an error of a kind that the SDK does
/// not repeat: the retries of its own for a virtual machine's metadata endpoint cannot be switched off, and of a refusal by
/// Entra ID it loses the status, since it cannot read a description with an escape in it, which all of them have.
#[derive(Debug)]
pub(super) struct Transport {
    http: reqwest::Client,
    /// Base URL of Entra ID, without a slash at its end.
    authority: String,
    seen: Mutex<Option<Seen>>,
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The answer may be a token.
        f.debug_struct("Seen").field("host", &self.host).finish_non_exhaustive()
    }
}

impl Transport {
    pub(super) fn new(http: reqwest::Client, authority: &str) -> Self {
        Self { http, authority: authority.to_owned(), seen: Mutex::default() }
    }

    /// What the last request came to; `None` if there was none.
    pub(super) fn seen(&self) -> Option<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn target(&self, url: &Url) -> Result<Url, url::ParseError> {
        if url.origin().ascii_serialization() == AUTHORITY {
            Url::parse(&format!("{}{}", self.authority, url.path()))
        } else {
            Ok(url.clone())
        }
    }

    async fn ask(&self, url: Url, request: &Request) -> Answer {
        let method = reqwest::Method::from_bytes(request.method().as_ref().as_bytes()).unwrap_or_default();
        let mut forwarded = self.http.request(method, url);
        for (name, value) in request.headers().iter() {
            forwarded = forwarded.header(name.as_str(), value.as_str());
        }
        if let Body::Bytes(bytes) = request.body() {
            forwarded = forwarded.body(bytes.clone());
        }
        let response = match forwarded.send().await {
            Ok(response) => response,
            Err(error) => return Answer::None(format!("cannot be reached: {}", http::explain(&error))),
        };
        let status = response.status();
        let read = http::read_body(response).await;
        match read.cut {
            Some(why) => Answer::None(format!("answered HTTP {}, but {why}", status.as_u16())),
            None => Answer::Whole(status.as_u16(), read.bytes),
        }
    }
}

#[async_trait::async_trait]
impl HttpClient for Transport {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let url = self.target(request.url()).map_err(|error| Error::new(ErrorKind::Other, error))?;
        let host = url.host_str().unwrap_or_default().to_owned();
        let mut answer = self.ask(url, request).await;
        let given = match &answer {
            Answer::Whole(status, body) if (200..300).contains(status) => {
                let believable = is_believable(body);
                let given =
                    believable.then(|| AsyncRawResponse::from_bytes(StatusCode::Ok, Headers::default(), body.clone()));
                // A token is kept in one place.
                answer = Answer::Whole(*status, Vec::new());
                given
            }
            _ => None,
        };
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(Seen { host, answer });
        given.ok_or_else(|| Error::with_message(ErrorKind::Other, "no token"))
    }
}

/// Whether a token's lifetime, if it has one, is one that can be added to a time.
fn is_believable(body: &[u8]) -> bool {
    let Ok(Value::Object(answer)) = serde_json::from_slice(body) else { return false };
    match answer.get("expires_in") {
        Some(Value::Number(seconds)) => seconds.as_u64().is_some_and(|seconds| seconds <= LONGEST_LIFETIME_SECONDS),
        _ => true,
    }
}
