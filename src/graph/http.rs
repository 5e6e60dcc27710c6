//! HTTP without surprises: no hidden retry, no redirect, bounded time and bounded memory.

use std::error::Error as _;
use std::time::Duration;

use futures_util::StreamExt as _;

/// Bytes of an answer that are read; what is longer is cut off there. A thousand devices need 45,000.
pub(super) const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;

/// Time to open a connection. Until then nothing is sent, so running out of it is safe to repeat.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether a request goes through a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proxy {
    /// Through the one that the system's variables name, if they do.
    OfTheSystem,
    /// Straight.
    None,
}

/// An HTTP client for Graph and Entra ID.
pub(super) fn client(timeout: Duration, proxy: Proxy) -> Result<reqwest::Client, reqwest::Error> {
    // Whichever tenant is first installs it; a second installation is refused and the first one stays.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder();
    let builder = if proxy == Proxy::None { builder.no_proxy() } else { builder };
    builder
        .user_agent(concat!("reprovisiond/", env!("CARGO_PKG_VERSION")))
        .timeout(timeout)
        .connect_timeout(CONNECT_TIMEOUT.min(timeout))
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        // A connection that the other side closes just as a request is written leaves a doubt, and a doubt costs a
        // read-back or a person; a new connection costs milliseconds.
        .pool_max_idle_per_host(0)
        .build()
}

/// A body as far as it came.
pub(super) struct ReadBody {
    /// The bytes.
    pub(super) bytes: Vec<u8>,
    /// Why they are not all of it.
    pub(super) cut: Option<String>,
}

/// Reads a body up to the bound.
pub(super) async fn read_body(response: reqwest::Response) -> ReadBody {
    let mut body = ReadBody { bytes: Vec::new(), cut: None };
    let mut stream = response.bytes_stream();
    while let Some(chunk) = stream.next().await {
        match chunk {
            Ok(chunk) if body.bytes.len() + chunk.len() <= MAX_BODY_BYTES => body.bytes.extend_from_slice(&chunk),
            Ok(_) => {
                body.cut = Some(format!("the body is longer than {MAX_BODY_BYTES} bytes"));
                break;
            }
            Err(error) => {
                body.cut = Some(format!("the body broke off: {}", explain(&error)));
                break;
            }
        }
    }
    body
}

/// An error with its causes in one line, without the URL's query.
pub(super) fn explain(error: &reqwest::Error) -> String {
    let mut text = if error.is_timeout() { "timed out".to_owned() } else { String::new() };
    let mut cause = error.source();
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !text.contains(&said) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&said);
        }
        cause = inner.source();
    }
    if text.is_empty() { error.to_string() } else { text }
}
