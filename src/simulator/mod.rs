//! A simulated Microsoft Graph and Entra ID, on a real port of the loopback.
//!
//! It shares no code with [`crate::graph`], so that a mistake cannot hide in both, and Microsoft's own SDK is run
//! against it (`tests/sdk`). It behaves like Graph where that matters to a client that must not reprovision twice: the
//! request checks, throttling, the shapes of success and of errors, the read-back, and every way in which an answer can
//! be lost. [`Simulator::ledger`] is what really happened; tests judge the daemon by it and not by the daemon's tables.
//!
//! # What it does for one request
//! 1. It counts the call and looks up its [`faults`]; those that mean "not done" end here.
//! 2. It checks token and role, throttles (refused calls count too), checks the body.
//! 3. It does the work in one step, and writes the ledger.
//! 4. It waits for the latency, if any: a client that gives up in that time has lost the answer, not the request.
//! 5. It answers, truly or as the fault says.
//!
//! # What it speaks
//! The three [`interface`]s by which Graph reprovisions ([`action`], `bulk`, `reprovision`), the last one also inside a
//! `$batch` (`batch`); the Cloud PC list (`cloud_pcs`), and the read-back by managed device and by Cloud PC (`read_back`).
//! A new endpoint gets a file, and a name in `route`.
//!
//! # For tests in other processes
//! `GET /simulator/ledger`, `/simulator/requests`, `/simulator/traffic`, `/simulator/fleet`; `POST /simulator/faults` with one fault or a list
//! of them; `POST /simulator/tokens` with `{"roles": […], "expire": true}`.

#![allow(clippy::disallowed_methods, reason = "it plays another machine, with a clock and chance of its own")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum_server::Handle;
use axum_server::tls_rustls::RustlsAcceptor;
use chrono::{DateTime, TimeDelta, Utc};
use tokio::task::JoinHandle;
use uuid::Uuid;

pub mod action;
mod answer;
mod assertion;
mod batch;
mod bulk;
mod clock;
mod cloud_pcs;
mod console;
mod credentials;
mod discovery;
pub mod fault_spec;
pub mod faults;
pub mod fleet;
mod http;
pub mod humane;
mod identity;
pub mod interface;
pub mod ledger;
mod odata;
mod read_back;
mod reprovision;
mod route;
mod scratch;
mod seeded;
#[cfg(test)]
mod tests;
pub mod throttle;
mod tls;
pub mod token;
pub mod traffic;
mod verdict;
mod wire;

pub use action::AnswerShape;
pub use faults::{Effect, Endpoint, Fault, FaultScript, RandomFaults, RetryAfter, StatusFault};
pub use fleet::{Behaviour, Device, Others, Shares};
pub use interface::Interface;
pub use ledger::{ActionRequest, LedgerEntry, Pace};
pub use throttle::Throttle;
pub use traffic::GraphRequest;

/// How a simulator behaves. The default is a healthy service without faults that throttles as published.
#[derive(Debug, Clone)]
pub struct Options {
    /// A loopback address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// HTTPS, with a throwaway authority.
    pub tls: bool,
    /// What tenant, app, invented devices and random choices are derived from. Secrets and tokens are not.
    pub seed: u64,
    /// How many devices to invent.
    pub devices: usize,
    /// Which of the invented ones do not simply succeed.
    pub shares: Shares,
    /// Devices beside the invented ones and the reference page's two.
    pub fleet: Vec<Device>,
    /// How IDs outside the fleet are treated.
    pub others: Others,
    /// The shape of a success.
    pub answer_shape: AnswerShape,
    /// Between the work and the answer, for every request to Graph or Entra.
    pub latency: Duration,
    /// For the actions, all three together.
    pub throttle: Throttle,
    /// How fast reprovisions go.
    pub pace: Pace,
    /// The roles of the tokens issued.
    pub roles: Vec<String>,
    /// How long a token is good for.
    pub token_lifetime: Duration,
    /// How far Graph's clock is ahead of the host's; negative for behind.
    pub clock_ahead: TimeDelta,
    /// How many items of a list make a page; at least 1.
    pub page_size: usize,
    /// A reprovisioned Cloud PC is listed without a managed device ID while that runs, and then with a new one: it
    /// enrols anew. Ledger and the first action's interfaces keep the one that the fleet gave it.
    pub new_ids: bool,
    /// Interfaces that this tenant no longer has.
    pub without: Vec<Interface>,
    /// What goes wrong.
    pub faults: FaultScript,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: false,
            seed: 1,
            devices: 0,
            shares: Shares::default(),
            fleet: Vec::new(),
            others: Others::default(),
            answer_shape: AnswerShape::default(),
            latency: Duration::ZERO,
            throttle: Throttle::PUBLISHED,
            pace: Pace::default(),
            roles: vec![token::READ_WRITE.to_owned()],
            token_lifetime: Duration::from_secs(3599),
            clock_ahead: TimeDelta::zero(),
            page_size: 100,
            new_ids: false,
            without: Vec::new(),
            faults: FaultScript::default(),
        }
    }
}

/// Why a simulator did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Anybody in the network could read its ledger and steer its faults.
    #[error("the simulator listens on a loopback address only, and {0} is none: use 127.0.0.1:0 or [::1]:0")]
    NotLoopback(SocketAddr),
    /// Shares of a fleet that are none.
    #[error("the shares of a fleet lie between 0 and 1 and are at most 1 together: {0:?}")]
    Shares(Shares),
    /// A fault that cannot do what it says.
    #[error("entry {0} of the faults: {1}")]
    Fault(usize, String),
    /// The address is taken, or the like.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    /// No place for the credentials.
    #[error("cannot write the app's credentials: {}: {error}", path.display())]
    Secret {
        /// The file or directory.
        path: PathBuf,
        /// What happened.
        error: std::io::Error,
    },
    /// The certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Tls(Box<dyn std::error::Error + Send + Sync>),
}

/// What the handlers share.
#[derive(Debug)]
struct Shared {
    base_url: String,
    tenant_id: Uuid,
    client_id: Uuid,
    credentials: Mutex<credentials::Credentials>,
    seed: u64,
    answer_shape: AnswerShape,
    latency: Duration,
    pace: Pace,
    page_size: usize,
    new_ids: bool,
    without: Vec<Interface>,
    clock: clock::Clock,
    fleet: fleet::Fleet,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    ledger: ledger::Ledger,
    faults: verdict::Faults,
    window: throttle::Window,
    tokens: token::Tokens,
    bulk_actions: Vec<bulk::BulkAction>,
    batches: u64,
    traffic: traffic::Traffic,
}

/// A lock is never held over an await, and what it guards is whole after every statement: a panic elsewhere in a test
/// must not hide the ledger from it.
fn unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running simulator. Dropping it stops it at once and removes its secret.
#[derive(Debug)]
pub struct Simulator {
    shared: Arc<Shared>,
    handle: Handle<SocketAddr>,
    server: Option<JoinHandle<std::io::Result<()>>>,
    scratch: scratch::Scratch,
}

impl Simulator {
    /// Starts it; when this returns, it answers. Needs a tokio runtime.
    pub fn start(options: Options) -> Result<Self, StartError> {
        let listen = options.listen;
        if !listen.ip().is_loopback() {
            return Err(StartError::NotLoopback(listen));
        }
        if !options.shares.are_shares() {
            return Err(StartError::Shares(options.shares));
        }
        let mut mistakes = options.faults.script.iter().map(Fault::mistake).enumerate();
        if let Some((index, mistake)) = mistakes.find_map(|(index, mistake)| Some((index, mistake?))) {
            return Err(StartError::Fault(index + 1, mistake));
        }
        let on_port = |error| StartError::Listen(listen, error);
        let listener = std::net::TcpListener::bind(listen).map_err(on_port)?;
        let address = listener.local_addr().map_err(on_port)?;
        let server = axum_server::from_tcp(listener).map_err(on_port)?;
        let tls = options.tls.then(|| tls::throwaway(address.ip())).transpose().map_err(StartError::Tls)?;

        let scheme = if options.tls { "https" } else { "http" };
        let shared =
            Shared::new(options, format!("{scheme}://{address}")).map_err(|error| StartError::Tls(error.into()))?;
        let shared = Arc::new(shared);
        let scratch =
            scratch::Scratch::write(&unpoisoned(&shared.credentials), tls.as_ref().map(|tls| tls.ca_pem.as_str()))
                .map_err(|(path, error)| StartError::Secret { path, error })?;

        let handle = Handle::new();
        let server = server.handle(handle.clone());
        let app = http::router(Arc::clone(&shared)).into_make_service();
        let server = match tls {
            Some(tls) => {
                let acceptor = RustlsAcceptor::new(tls.config).acceptor(wire::Switched);
                tokio::spawn(server.acceptor(acceptor).serve(app))
            }
            None => tokio::spawn(server.acceptor(wire::Switched).serve(app)),
        };
        Ok(Self { shared, handle, server: Some(server), scratch })
    }

    /// Where Graph is, without a trailing slash.
    pub fn graph_url(&self) -> &str {
        &self.shared.base_url
    }

    /// Where Entra ID is, without a trailing slash.
    pub fn authority_url(&self) -> &str {
        &self.shared.base_url
    }

    /// The one tenant.
    pub fn tenant_id(&self) -> Uuid {
        self.shared.tenant_id
    }

    /// The one app.
    pub fn client_id(&self) -> Uuid {
        self.shared.client_id
    }

    /// The file with the app's secret, readable by its owner only.
    pub fn client_secret_file(&self) -> &Path {
        &self.scratch.secret
    }

    /// The PEM file with the app's certificate and its private key.
    pub fn certificate_file(&self) -> &Path {
        &self.scratch.certificate
    }

    /// The file with another identity provider's token, which the app trusts.
    pub fn federated_token_file(&self) -> &Path {
        &self.scratch.federated_token
    }

    /// What App Service gives its processes, by which they get the tokens of their managed identity: the values of
    /// `IDENTITY_ENDPOINT` and `IDENTITY_HEADER`. The identity is the app, system-assigned and user-assigned alike.
    pub fn identity_endpoint(&self) -> (String, String) {
        let header = unpoisoned(&self.shared.credentials).identity_header.clone();
        (format!("{}/msi/token", self.shared.base_url), header)
    }

    /// Gives the app a new secret, certificate and federated token in the same files, and refuses the old ones.
    pub fn rotate_credentials(&self) -> Result<(), StartError> {
        let mut fresh = credentials::Credentials::fresh(self.shared.client_id, self.now())
            .map_err(|error| StartError::Tls(error.into()))?;
        let mut credentials = unpoisoned(&self.shared.credentials);
        // A running process is not given another.
        fresh.identity_header = std::mem::take(&mut credentials.identity_header);
        *credentials = fresh;
        self.scratch.put(&credentials).map_err(|(path, error)| StartError::Secret { path, error })
    }

    /// With TLS, the file with the certificate that a client must trust.
    pub fn ca_file(&self) -> Option<&Path> {
        self.scratch.ca.as_deref()
    }

    /// All devices of the fleet, the reference page's two first.
    pub fn devices(&self) -> &[Device] {
        self.shared.fleet.devices()
    }

    /// Every reprovision that really happened, oldest first.
    pub fn ledger(&self) -> Vec<LedgerEntry> {
        unpoisoned(&self.shared.state).ledger.entries().to_vec()
    }

    /// Every HTTP request to an action, carried out or refused, in the order of arrival.
    pub fn requests(&self) -> Vec<ActionRequest> {
        unpoisoned(&self.shared.state).ledger.requests().to_vec()
    }

    /// The latest requests to Graph of any kind, oldest first, as they were written.
    pub fn traffic(&self) -> Vec<GraphRequest> {
        unpoisoned(&self.shared.state).traffic.latest()
    }

    /// Appends to the script. Refuses an entry that could never do what it says.
    pub fn add_fault(&self, fault: impl Into<Fault>) -> Result<(), String> {
        let fault = fault.into();
        if let Some(mistake) = fault.mistake() {
            return Err(mistake);
        }
        unpoisoned(&self.shared.state).faults.add(fault);
        Ok(())
    }

    /// From now on tokens are issued with these roles; those already issued keep theirs, as with Entra.
    pub fn grant_roles<I: IntoIterator<Item: Into<String>>>(&self, roles: I) {
        unpoisoned(&self.shared.state).tokens.roles = roles.into_iter().map(Into::into).collect();
    }

    /// Every token issued so far is refused as expired.
    pub fn expire_tokens(&self) {
        let now = self.now();
        unpoisoned(&self.shared.state).tokens.expire(now);
    }

    /// Graph's clock.
    pub fn now(&self) -> DateTime<Utc> {
        self.shared.clock.now()
    }

    /// Moves Graph's clock forward: reprovisions progress, tokens expire, throttling ends, without anybody waiting.
    pub fn advance(&self, by: Duration) {
        self.shared.clock.advance(by);
    }

    /// Stops listening, breaks open connections, and returns when all is quiet and the secret is removed.
    pub async fn shutdown(mut self) -> std::io::Result<()> {
        self.handle.shutdown();
        match self.server.take() {
            Some(server) => server.await.unwrap_or_else(|error| Err(std::io::Error::other(error))),
            None => Ok(()),
        }
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.handle.shutdown();
    }
}

impl Shared {
    fn new(options: Options, base_url: String) -> Result<Self, rcgen::Error> {
        let Options { seed, devices, shares, fleet, others, .. } = options;
        let (clock, client_id) = (clock::Clock::ahead_by(options.clock_ahead), seeded::guid(seed, "client", 0));
        Ok(Self {
            base_url,
            tenant_id: seeded::guid(seed, "tenant", 0),
            client_id,
            credentials: Mutex::new(credentials::Credentials::fresh(client_id, clock.now())?),
            seed,
            answer_shape: options.answer_shape,
            latency: options.latency,
            pace: options.pace,
            page_size: options.page_size.max(1),
            new_ids: options.new_ids,
            without: options.without,
            clock,
            fleet: fleet::Fleet::gather(fleet, devices, shares, others, seed),
            state: Mutex::new(State {
                ledger: ledger::Ledger::default(),
                faults: verdict::Faults::new(options.faults),
                window: throttle::Window::new(options.throttle),
                tokens: token::Tokens::new(options.roles, options.token_lifetime),
                bulk_actions: Vec::new(),
                batches: 0,
                traffic: traffic::Traffic::default(),
            }),
        })
    }
}
