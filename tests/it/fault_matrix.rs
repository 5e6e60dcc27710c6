//! What an answer, or the lack of one, leads to: every status, every form of `Retry-After` and every fault of the transport,
//! each through the real client over HTTP. What is expected stands here, written out from the protocol, not taken from the code.

mod faults;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chrono::Utc;
use reprovisiond::config::{Credential, Tenant};
use reprovisiond::domain::action::Action;
use reprovisiond::domain::answer::{Exchange, asks_to_wait, meaning};
use reprovisiond::domain::id::{CallId, CloudPcId, ManagedDeviceId, RequestId};
use reprovisiond::domain::lifecycle::{Bucket, CallState, EntryEffect, Recording, TenantEffect, WaitCode};
use reprovisiond::domain::retry::{Ended, RetryPolicy, Sent, verdict};
use reprovisiond::graph::{Graph, GraphClient, Outgoing};
use reprovisiond::simulator::faults::ErrorBody;
use reprovisiond::simulator::{
    Effect, Endpoint, Fault, FaultScript, Options, Pace, RetryAfter, Simulator, StatusFault,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use url::Url;

use crate::support::calm;

/// Which bodies a row of the table is about.
#[derive(Clone, Copy, PartialEq)]
enum Bodies {
    Any,
    /// Graph's own error object.
    Graphs,
    /// None, or a proxy's page.
    Others,
}

use Bodies::{Any, Graphs, Others};

/// Section 3 of the protocol and what ARCHITECTURE.md adds to it.
///
/// The class goes by the answer alone: the client cannot see whether the work was done, so a row is right only if it is safe
/// where it was. What is not `unknown` here is said by whoever did not do the work: a router before the action (3xx, 404,
/// 405, 410, 501), the check of the token or the role (401, 403), the throttle (429, and Graph's own 503 and 509), the check
/// of the request (400 and its like); the simulator can be told to do the work and say so all the same, which Graph does not.
const TABLE: &[(&[u16], Bodies, &str)] = &[
    // A success that names no bucket: a status set by a fault carries an error's body, or none.
    (&[200, 201, 202, 204, 206], Any, "unknown"),
    (&[301, 302, 304, 307, 308], Any, "blocked: unexpected_answer"),
    (&[402, 407, 411, 414, 415, 417, 418, 421, 425, 426, 431, 451], Any, "blocked: unexpected_answer"),
    // 303 shows the result of what was done, 406 may be said after it, 408 and 499 give up nobody knows where.
    (&[303, 406, 408, 499], Any, "unknown"),
    (&[400, 409, 412, 413, 422, 423, 424, 428], Any, "halved"),
    (&[401], Any, "wait: token_refused"),
    (&[403], Any, "blocked: forbidden"),
    (&[404, 405, 410, 501], Any, "blocked: action_unavailable"),
    (&[429], Any, "wait: throttled"),
    // Without Graph's own body a gateway is speaking, and it cannot know whether Graph acted.
    (&[503, 509], Graphs, "wait: throttled"),
    (&[503, 509], Others, "unknown"),
    (&[500, 502, 504, 505, 506, 507, 508, 510, 511, 520, 521, 522, 523, 524, 525, 529, 530, 599], Any, "unknown"),
];

/// Each form of `Retry-After`, and the least and the most that it asks for; `None` where it is no wish that is sane.
const RETRY_AFTERS: [(RetryAfter, Option<(u64, u64)>); 11] = [
    (RetryAfter::Missing, None),
    (RetryAfter::Seconds(1), Some((1, 1))),
    (RetryAfter::Seconds(30), Some((30, 30))),
    (RetryAfter::Seconds(86_400), Some((86_400, 86_400))),
    (RetryAfter::Seconds(86_401), None),
    // A date has whole seconds, and so has the Date header that it is measured from, perhaps one second further.
    (RetryAfter::Date(30), Some((29, 30))),
    (RetryAfter::Date(-30), None),
    (RetryAfter::Zero, Some((0, 0))),
    (RetryAfter::Negative, None),
    (RetryAfter::Huge, None),
    (RetryAfter::Garbage, None),
];

const BODIES: [(ErrorBody, Bodies); 3] =
    [(ErrorBody::Service, Graphs), (ErrorBody::None, Others), (ErrorBody::Html, Others)];

/// The own schedule's delay, shorter than any second.
const OWN_DELAY: Duration = Duration::from_millis(250);

/// A simulator, a client of it, and how often the last check was asked.
struct Bench {
    action: Action,
    simulator: Simulator,
    graph: GraphClient,
    asked: Arc<AtomicUsize>,
}

impl Bench {
    fn new() -> Self {
        Self::calling(Action::BulkReprovisionCloudPc)
    }

    fn calling(action: Action) -> Self {
        // A bulk action has begun, and so says what became of its devices, by the time it is accepted.
        let pace = Pace { pending: Duration::ZERO, ..Pace::default() };
        let simulator = Simulator::start(Options { devices: 10, pace, ..calm() }).unwrap();
        let tenant = Tenant { action, ..tenant(&simulator, simulator.graph_url()) };
        let graph = GraphClient::new(&tenant, &settings()).unwrap();
        Self { action, simulator, graph, asked: Arc::default() }
    }

    /// A client, with a token, of a Graph at `graph_url`.
    async fn elsewhere(graph_url: &str) -> Self {
        let bench = Self::new();
        let tenant = Tenant { authority_url: generous_authority().await, ..tenant(&bench.simulator, graph_url) };
        let graph = GraphClient::new(&tenant, &settings()).unwrap();
        graph.prepare().await.unwrap();
        assert!(graph.ready());
        Self { graph, ..bench }
    }

    fn devices(&self, n: usize) -> Vec<ManagedDeviceId> {
        self.simulator.devices().iter().skip(2).take(n).map(|device| device.managed_device_id).collect()
    }

    /// What the intent would name.
    fn cloud_pcs(&self, devices: &[ManagedDeviceId]) -> Option<Vec<Option<CloudPcId>>> {
        let of = |device| {
            let known = self.simulator.devices().iter().find(|known| known.managed_device_id == device)?;
            known.cloud_pc_id.map(CloudPcId)
        };
        self.action.takes_cloud_pc_ids().then(|| devices.iter().map(|device| of(*device)).collect())
    }

    /// One call for `n` devices: what was seen, and what is to be recorded.
    async fn call(&self, n: usize, open: bool) -> (Exchange, Recording) {
        let (devices, id, asked) = (self.devices(n), CallId::fresh(), Arc::clone(&self.asked));
        let fence = Box::new(move || {
            asked.fetch_add(1, Ordering::SeqCst);
            if open { Ok(()) } else { Err("too late".to_owned()) }
        });
        let outgoing = Outgoing { call: id, cloud_pcs: self.cloud_pcs(&devices), ..outgoing(&devices) };
        let reply = self.graph.reprovision(&outgoing, fence).await;
        let asks_to_wait = asks_to_wait(&reply.exchange, Utc::now());
        let meaning = meaning(&reply.exchange, self.action, &devices, reply.renewed_token, Utc::now());
        let sent: Vec<Sent> = (1..=i64::try_from(n).unwrap())
            .map(|request| Sent { request_id: RequestId(request), attempts: 0, expires_at: None })
            .collect();
        let ended = Ended { call_id: id, sent: &sent, waits_in_a_row: 0, asks_to_wait, now: Utc::now() };
        let policy =
            RetryPolicy { max_attempts: 3, retry_failed: false, blocked_probe_interval: Duration::from_mins(15) };
        (reply.exchange, verdict(meaning, &ended, &policy, &mut |n| OWN_DELAY * n))
    }

    /// Wipes and last checks since the start.
    fn counts(&self) -> (usize, usize) {
        (self.simulator.ledger().len(), self.asked.load(Ordering::SeqCst))
    }
}

/// Gives out one token, for whatever Graph: the simulator's Entra ID knows only its own.
async fn generous_authority() -> Url {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let _ = connection.read(&mut request).await;
        let body = r#"{"token_type":"Bearer","access_token":"some-token","expires_in":3599}"#;
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length:";
        let _ = connection.write_all(format!("{head} {}\r\n\r\n{body}", body.len()).as_bytes()).await;
    });
    url
}

/// A call of the default action.
fn outgoing(devices: &[ManagedDeviceId]) -> Outgoing {
    Outgoing { call: CallId::fresh(), devices: devices.to_vec(), cloud_pcs: None }
}

fn settings() -> reprovisiond::config::Graph {
    reprovisiond::config::Graph { call_timeout: PATIENCE, ..reprovisiond::config::Config::default().graph }
}

/// How long a client waits for an answer that may not come.
const PATIENCE: Duration = Duration::from_millis(700);

fn tenant(simulator: &Simulator, graph_url: &str) -> Tenant {
    Tenant {
        graph_url: Url::parse(graph_url).unwrap(),
        authority_url: Url::parse(simulator.authority_url()).unwrap(),
        tenant_id: simulator.tenant_id().to_string(),
        credential: Credential::ClientSecret {
            client_id: simulator.client_id().to_string(),
            file: simulator.client_secret_file().to_owned(),
        },
        action: Action::BulkReprovisionCloudPc,
        limits: reprovisiond::config::Config::default().limits,
    }
}

/// The class of a recording, in the words of the table; that its devices are treated alike is checked on the way.
fn class(recording: &Recording, cell: &str) -> String {
    let all = |holds: &dyn Fn(&EntryEffect) -> bool, n: &str| {
        assert!(recording.entries.iter().all(|(_, effect)| holds(effect)), "{cell}: {n}, and yet {recording:?}");
    };
    let again = |most: Option<u32>| move |effect: &EntryEffect| matches!(effect, EntryEffect::Requeue { max_batch, .. } if *max_batch == most);
    match (&recording.state, &recording.tenant) {
        (CallState::Unknown, TenantEffect::Caution) => {
            all(&|effect| matches!(effect, EntryEffect::Unknown { .. }), "unknown");
            "unknown".to_owned()
        }
        (CallState::NotCarriedOut, TenantEffect::Wait { code, .. }) => {
            all(&again(None), code.as_str());
            format!("wait: {code}")
        }
        (CallState::NotSent, TenantEffect::Wait { .. }) => {
            all(&again(None), "not sent");
            "not sent".to_owned()
        }
        (CallState::NotCarriedOut, TenantEffect::Block { code, .. }) => {
            all(&again(None), code.as_str());
            format!("blocked: {code}")
        }
        (CallState::NotCarriedOut, TenantEffect::Clear) => {
            all(&again(Some(2)), "halved");
            "halved".to_owned()
        }
        (CallState::Answered, TenantEffect::Clear) => {
            let of = |word: &str| {
                let is = |effect: &EntryEffect| match effect {
                    EntryEffect::Final { bucket, .. } => bucket.as_str() == word,
                    EntryEffect::Unknown { .. } => word == "unknown",
                    _ => false,
                };
                recording.entries.iter().filter(|(_, effect)| is(effect)).count()
            };
            format!("answered: {} successful, {} failed, {} unknown", of("successful"), of("failed"), of("unknown"))
        }
        other => format!("{other:?}"),
    }
}

/// Every row of the table with these statuses, times `RETRY_AFTERS`, `BODIES`, and done or not: returns the cells tried.
async fn rows(action: Action, statuses: std::ops::Range<u16>) -> usize {
    let bench = Bench::calling(action);
    let mut cells = 0;
    for &(row, of, expected) in TABLE {
        for &code in row.iter().filter(|code| statuses.contains(code)) {
            for (body, _) in BODIES.into_iter().filter(|(_, kind)| of == Any || of == *kind) {
                for (retry_after, asks) in RETRY_AFTERS {
                    for done in [false, true] {
                        let status = StatusFault { code, retry_after, body, ..StatusFault::default() };
                        one_cell(&bench, &status, done, asks, expected).await;
                        cells += 1;
                    }
                }
            }
        }
    }
    cells
}

async fn one_cell(bench: &Bench, status: &StatusFault, done: bool, asks: Option<(u64, u64)>, expected: &str) {
    let cell = format!("{status:?}, done: {done}");
    if status.code == 401 {
        // A token that has been taken: only the second refusal in a row is not the token's age.
        bench.call(1, true).await;
    }
    let (wiped, checks) = bench.counts();
    let effect = if done { Effect::DoneThenStatus(status.clone()) } else { Effect::Status(status.clone()) };
    bench.simulator.add_fault(effect).unwrap();
    let (exchange, recording) = bench.call(3, true).await;
    assert!(matches!(&exchange, Exchange::Answered(answer) if answer.status == status.code), "{cell}: {exchange:?}");
    assert_eq!(class(&recording, &cell), expected, "{cell}");
    assert_eq!(bench.counts(), (wiped + if done { 3 } else { 0 }, checks + 1), "{cell}: wipes and last checks");
    // Never early, whatever the answer means; and not later than the own schedule, or the wish if that is later.
    let (own, waits) = match &recording.tenant {
        TenantEffect::Wait { delay, code: WaitCode::Throttled, .. } => (OWN_DELAY, *delay),
        TenantEffect::Wait { delay, .. } => (Duration::ZERO, *delay),
        _ => (Duration::ZERO, recording.leave_alone.unwrap_or_default()),
    };
    // Only a success is taken at its word, and makes nobody wait.
    let (least, most) = asks.filter(|_| !(200..300).contains(&status.code)).unwrap_or_default();
    let bounds = own.max(Duration::from_secs(least))..=own.max(Duration::from_secs(most));
    assert!(bounds.contains(&waits), "{cell}: waits {waits:?}, not {bounds:?}");
    if let TenantEffect::Block { probe_after, .. } = &recording.tenant {
        assert_eq!(*probe_after, Duration::from_mins(15), "{cell}");
    }
}

/// A test for each action and hundred of statuses, which says how many cells it has.
macro_rules! each_status {
    ($($name:ident: $statuses:expr => $cells:literal;)+) => {$(
        mod $name {
            use super::*;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn bulk_reprovision() { assert_eq!(rows(Action::BulkReprovisionCloudPc, $statuses).await, $cells); }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn bulk_action() { assert_eq!(rows(Action::CloudPcBulkAction, $statuses).await, $cells); }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn batch() { assert_eq!(rows(Action::CloudPcReprovision, $statuses).await, $cells); }
        }
    )+};
}

each_status! {
    a_success_by_status_alone_is_in_doubt: 200..300 => 330;
    a_redirection_is_not_followed_and_blocks_unless_it_may_follow_the_work: 300..400 => 396;
    a_400_to_419_is_taken_for_what_the_protocol_says: 400..420 => 1188;
    a_420_to_499_is_taken_for_what_the_protocol_says: 420..500 => 726;
    a_500_is_in_doubt_unless_graph_itself_refuses: 500..600 => 1386;
}

#[tokio::test]
async fn a_refusal_of_a_call_of_one_ends_it_as_failed_and_a_second_401_in_a_row_blocks() {
    for action in Action::ALL {
        refused(&Bench::calling(*action)).await;
    }
}

async fn refused(bench: &Bench) {
    for code in [400, 409, 412, 413, 422, 423, 424, 428] {
        bench.simulator.add_fault(Effect::status(code)).unwrap();
        let (_, recording) = bench.call(1, true).await;
        assert_eq!(class(&recording, "one"), "answered: 0 successful, 1 failed, 0 unknown", "{code}");
    }
    for expected in ["wait: token_refused", "blocked: unauthorized"] {
        bench.simulator.add_fault(Effect::status(401)).unwrap();
        let (_, recording) = bench.call(3, true).await;
        assert_eq!(class(&recording, "401"), expected);
    }
    assert!(bench.simulator.ledger().is_empty());
}

#[tokio::test]
async fn a_bucket_is_taken_as_it_is_given() {
    let bench = Bench::new();
    // The reference page's second device is one that Graph lists as failed, an unknown one as not found.
    let devices = [bench.simulator.devices()[0].managed_device_id, bench.simulator.devices()[1].managed_device_id];
    let reply = bench.graph.reprovision(&outgoing(&devices), Box::new(|| Ok(()))).await;
    let wiped: Vec<_> = bench.simulator.ledger().into_iter().map(|entry| entry.managed_device_id).collect();
    let meaning = meaning(&reply.exchange, Action::BulkReprovisionCloudPc, &devices, false, Utc::now());
    let reprovisiond::domain::answer::Meaning::Answered { devices: answers, .. } = meaning else {
        panic!("{meaning:?}")
    };
    for (device, answer) in devices.iter().zip(answers) {
        let successful = answer == reprovisiond::domain::answer::DeviceAnswer::Bucket(Bucket::Successful, None);
        assert_eq!(wiped.contains(device), successful, "{device}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_was_given_up_before_the_last_check_had_spoken_is_not_sent_whatever_it_says_then() {
    let bench = Bench::new();
    let (speak, may_speak) = std::sync::mpsc::channel::<()>();
    let (speaks, spoken) = tokio::sync::oneshot::channel();
    let fence = Box::new(move || {
        may_speak.recv().unwrap();
        speaks.send(()).unwrap();
        Ok(())
    });
    let reply = bench.graph.reprovision(&outgoing(&bench.devices(3)), fence).await;
    assert!(matches!(reply.exchange, Exchange::NotSent { .. }), "{:?}", reply.exchange);
    speak.send(()).unwrap();
    spoken.await.unwrap();
    // Other calls, by the last of which whatever the first one may have written has arrived.
    for _ in 0..20 {
        bench.call(1, true).await;
    }
    assert_eq!(bench.simulator.ledger().len(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_does_not_come_about_is_not_sent_and_never_asks_the_last_check() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    // It takes connections, by the kernel's hand, and says nothing.
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plain = Simulator::start(calm()).unwrap();
    let untrusted = Simulator::start(Options { tls: true, ..calm() }).unwrap();
    for (what, graph_url) in [
        ("connection refused", format!("http://{closed}")),
        ("no such name", "http://graph.invalid".to_owned()),
        ("no TLS there", plain.graph_url().replace("http:", "https:")),
        ("a certificate that nobody trusts", untrusted.graph_url().to_owned()),
        ("a TLS handshake without an answer", format!("https://{}", mute.local_addr().unwrap())),
    ] {
        let bench = Bench::elsewhere(&graph_url).await;
        let (exchange, recording) = bench.call(3, true).await;
        let Exchange::NotSent { reason } = &exchange else { panic!("{what}: {exchange:?}") };
        assert!(!reason.contains("token"), "{what}: {reason}");
        assert_eq!(class(&recording, what), "not sent", "{what}");
        let TenantEffect::Wait { delay, .. } = recording.tenant else { panic!("{what}") };
        assert_eq!((delay, bench.counts()), (OWN_DELAY, (0, 0)), "{what}");
    }
    assert!(plain.requests().is_empty() && untrusted.requests().is_empty());
}

#[tokio::test]
async fn a_connection_that_takes_everything_and_says_nothing_is_in_doubt() {
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bench = Bench::elsewhere(&format!("http://{}", mute.local_addr().unwrap())).await;
    let (exchange, recording) = bench.call(3, true).await;
    assert!(matches!(exchange, Exchange::Lost { .. }), "{exchange:?}");
    assert_eq!((class(&recording, "mute").as_str(), bench.counts()), ("unknown", (0, 1)));
}

#[tokio::test]
async fn a_call_that_the_last_check_refuses_reaches_graph_without_its_devices_and_is_not_sent() {
    let bench = Bench::new();
    for attempt in 1..=20 {
        let (exchange, recording) = bench.call(3, false).await;
        assert!(matches!(&exchange, Exchange::NotSent { reason } if reason == "too late"), "{exchange:?}");
        assert_eq!(class(&recording, "refused"), "not sent");
        assert_eq!(bench.counts(), (0, attempt));
    }
    let with_devices = bench.simulator.requests().into_iter().find(|request| !request.managed_device_ids.is_empty());
    assert_eq!(with_devices, None);
    assert_eq!(class(&bench.call(3, true).await.1, "open"), faults::ANSWERED);
}
