//! Graph as one worker sees it, and the ledger of what really happened.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use reprovisiond::domain::answer::{Body, BucketLists, Evidence, Exchange, GraphError, HttpAnswer};
use reprovisiond::domain::id::{CallId, ManagedDeviceId, TenantName};
use reprovisiond::domain::read_back::{ReadBack, RemoteAction, Seen, Subject};
use reprovisiond::graph::{Composed, Fence, Graph, Outgoing, Reply, TokenError, Unprepared};

use super::invariants;
use super::world::{BEGINNING, Life, Mutant, State, World};

/// A device that was reprovisioned.
pub(super) struct Wipe {
    pub(super) call: usize,
    started_at: DateTime<Utc>,
    shows_from: Duration,
}

/// A `Retry-After` that Graph has asked for.
pub(super) struct Wish {
    pub(super) call: usize,
    pub(super) worker: usize,
    pub(super) tenant: TenantName,
    pub(super) until: Duration,
    /// Its worker has read it.
    pub(super) read: bool,
    pub(super) recorded: Option<Duration>,
}

/// What really happened.
#[derive(Default)]
pub(super) struct Ledger {
    pub(super) wipes: BTreeMap<ManagedDeviceId, Vec<Wipe>>,
    pub(super) wishes: Vec<Wish>,
    pub(super) sent: usize,
}

/// What a device is to Graph.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    CloudPc,
    Failing,
    NotFound,
    NotSupported,
    /// A call that holds it is refused as a whole.
    Poison,
}

fn kind(device: ManagedDeviceId) -> Kind {
    match device.as_uuid().as_u128() % 13 {
        3 => Kind::Failing,
        5 => Kind::NotFound,
        8 => Kind::NotSupported,
        11 => Kind::Poison,
        _ => Kind::CloudPc,
    }
}

pub(super) struct ModelGraph {
    pub(super) world: Arc<World>,
    pub(super) life: Arc<Life>,
    pub(super) tenant: TenantName,
}

/// What comes of one request that left.
struct Course {
    /// Graph acts on it.
    arrives: bool,
    way: Duration,
    answer: Option<HttpAnswer>,
    answer_takes: Duration,
    /// Without an answer: the connection breaks after this, or the call times out.
    breaks_after: Option<Duration>,
}

fn answer(status: u16, code: Option<&str>, body: Body) -> HttpAnswer {
    let error = code.map(|code| GraphError { code: code.to_owned(), message: String::new() });
    HttpAnswer { status, retry_after: None, date: None, error, body }
}

fn no_buckets() -> Body {
    Body::NoBuckets("a fault of the simulation".to_owned())
}

impl ModelGraph {
    /// The buckets as they should be, and then as a Graph that muddles them gives them.
    fn buckets(state: &mut State, devices: &[ManagedDeviceId]) -> BucketLists {
        let mut lists = BucketLists::default();
        for device in devices {
            let text = device.to_string();
            let muddles = state.weather.graph_muddles;
            if state.chance(muddles) {
                // In no bucket; in two, be it the right one among them; and one that nobody asked for.
                match state.rng.u8(0..3) {
                    0 => continue,
                    1 => {
                        lists.failed.push(text.to_uppercase());
                        lists.not_found.push(text.clone());
                    }
                    _ => lists.successful.push("surplus".to_owned()),
                }
            }
            match kind(*device) {
                Kind::CloudPc | Kind::Poison => lists.successful.push(text),
                Kind::Failing => lists.failed.push(text),
                Kind::NotFound => lists.not_found.push(text),
                Kind::NotSupported => lists.not_supported.push(text),
            }
        }
        lists
    }

    /// An answer that says that nothing was done, and it is so.
    fn refusal(state: &mut State, now: DateTime<Utc>) -> HttpAnswer {
        let wait = Duration::from_secs(state.rng.u64(0..200));
        let until = now + TimeDelta::from_std(wait).unwrap();
        match state.rng.u8(0..10) {
            0..=2 => HttpAnswer {
                retry_after: Some(wait.as_secs().to_string()),
                ..answer(429, Some("TooManyRequests"), no_buckets())
            },
            3 => HttpAnswer {
                retry_after: Some(httpdate::fmt_http_date(until.into())),
                date: Some(now),
                ..answer(429, None, no_buckets())
            },
            4 => answer(429, None, no_buckets()),
            5 | 6 => HttpAnswer {
                retry_after: Some(wait.as_secs().to_string()),
                ..answer(503, Some("serviceUnavailable"), no_buckets())
            },
            7 => answer(401, Some("InvalidAuthenticationToken"), no_buckets()),
            8 => answer(403, Some("Forbidden"), no_buckets()),
            _ => answer(404, None, no_buckets()),
        }
    }

    fn course(&self, state: &mut State, devices: &[ManagedDeviceId]) -> Course {
        let rules = &self.world.rules;
        let way =
            if state.chance(0.3) { state.time(rules.longest_way) } else { state.time(Duration::from_millis(300)) };
        let (loses, refuses) = (state.weather.graph_loses, state.weather.graph_refuses);
        let slow = if state.chance(0.2) { rules.call_timeout } else { Duration::from_secs(3) };
        let mut course =
            Course { arrives: true, way, answer: None, answer_takes: state.time(slow), breaks_after: None };
        if state.weather.only_times_out && !state.calm {
            course.arrives = state.rng.bool();
            return course;
        }
        if state.chance(refuses) {
            course.arrives = false;
            course.answer = Some(Self::refusal(state, self.world.graph_now()));
        } else if devices.iter().any(|device| kind(*device) == Kind::Poison) {
            course.arrives = false;
            course.answer = Some(answer(400, Some("BadRequest"), no_buckets()));
        } else {
            course.answer = Some(answer(200, None, Body::Buckets(Self::buckets(state, devices))));
        }
        if state.chance(loses) {
            course.arrives = course.arrives && state.rng.u8(0..3) > 0;
            course.answer = match state.rng.u8(0..6) {
                0 => Some(answer(504, None, no_buckets())),
                1 => Some(answer(503, None, no_buckets())),
                2 => Some(answer(500, Some("InternalServerError"), no_buckets())),
                3 => Some(answer(204, None, no_buckets())),
                _ => None,
            };
            course.breaks_after = state.rng.bool().then(|| state.time(Duration::from_secs(20)));
        }
        course
    }

    /// The request arrives, whatever has become of its sender.
    fn deliver(&self, number: usize, devices: &[ManagedDeviceId], way: Duration) {
        let (world, devices) = (Arc::clone(&self.world), devices.to_vec());
        tokio::spawn(async move {
            tokio::time::sleep(way).await;
            let started_at = world.graph_now();
            let mut state = world.state();
            for device in devices.into_iter().filter(|device| matches!(kind(*device), Kind::CloudPc)) {
                let late = state.weather.shows_late;
                // Lateness is no fault that ends: what Graph shows late is within its contract.
                let lag = if state.rng.f64() < late { world.rules.longest_lag } else { Duration::from_secs(2) };
                let lag = if state.rng.u8(0..4) == 0 { lag } else { state.time(lag) };
                let shows_from = state.db.time + lag;
                state.note(format_args!(
                    "call {number} wipes {device}, which shows from {:.3}",
                    shows_from.as_secs_f64()
                ));
                let wipe = Wipe { call: number, started_at, shows_from };
                state.ledger.wipes.entry(device).or_default().push(wipe);
                invariants::after_wipe(&mut state, number, device);
            }
        });
    }
}

fn reply(exchange: Exchange) -> Reply {
    let http_status = match &exchange {
        Exchange::Answered(answer) => Some(answer.status),
        _ => None,
    };
    Reply { exchange, evidence: Evidence { http_status, ..Evidence::default() }, renewed_token: false }
}

fn not_sent(reason: String) -> Reply {
    reply(Exchange::NotSent { reason })
}

#[async_trait]
impl Graph for ModelGraph {
    fn ready(&self) -> bool {
        let mut state = self.world.state();
        let fails = state.weather.token_fails;
        !state.chance(fails)
    }

    async fn prepare(&self) -> Result<(), Unprepared> {
        self.life.gate().await;
        let fails = {
            let mut state = self.world.state();
            let fails = state.weather.token_fails;
            state.chance(fails)
        };
        if fails { Err(TokenError::Unavailable("a fault of the simulation".to_owned()).into()) } else { Ok(()) }
    }

    fn has_target(&self, _: ManagedDeviceId) -> bool {
        true
    }

    fn compose(&self, _: CallId, _: &[ManagedDeviceId]) -> Composed {
        Composed { digest: String::new(), cloud_pcs: None }
    }

    async fn reprovision(&self, outgoing: &Outgoing, fence: Fence) -> Reply {
        let (call, devices) = (outgoing.call, &outgoing.devices);
        self.life.gate().await;
        let began = self.world.time();
        let (no_token, connecting, refused) = {
            let mut state = self.world.state();
            let fails = state.weather.token_fails;
            let longest = if state.chance(0.1) { Duration::from_secs(15) } else { Duration::from_millis(200) };
            (state.chance(fails / 2.0), state.time(longest), state.chance(0.03))
        };
        if no_token {
            return not_sent("no token: a fault of the simulation".to_owned());
        }
        tokio::time::sleep(connecting).await;
        if refused {
            return not_sent("could not connect: a fault of the simulation".to_owned());
        }
        self.life.gate().await;
        if let Err(reason) = fence()
            && self.world.rules.mutant != Some(Mutant::NoFence)
        {
            return not_sent(reason);
        }
        // From here to the ledger nothing waits: these are the bytes leaving.
        let (number, course) = {
            let mut state = self.world.state();
            let number = invariants::sent(&mut state, &self.world.rules, &self.life, call, devices);
            let course = self.course(&mut state, devices);
            let status = course.answer.as_ref().map(|answer| answer.status);
            let text = format!("worker {} sends call {number}: acts {}, {status:?}", self.life.number, course.arrives);
            state.note(format_args!("{text}"));
            (number, course)
        };
        if course.arrives {
            self.deliver(number, devices, course.way);
        }
        let timeout = (began + self.world.rules.call_timeout).saturating_sub(self.world.time());
        let answered = course.answer.filter(|_| course.way + course.answer_takes < timeout);
        let ends_after = match &answered {
            Some(_) => course.way + course.answer_takes,
            None => course.breaks_after.map_or(timeout, |breaks| breaks.min(timeout)),
        };
        let said_at = self.world.time() + ends_after;
        tokio::time::sleep(ends_after).await;
        self.life.gate().await;
        let Some(answered) = answered else {
            return reply(Exchange::Lost { reason: "no answer: a fault of the simulation".to_owned() });
        };
        if let Some(wait) = answered.retry_after.as_ref() {
            // A date in whole seconds is no wish for a part of one more.
            let seconds = wait.parse().ok().map(Duration::from_secs);
            let until = seconds.map_or_else(
                || {
                    let date: DateTime<Utc> = httpdate::parse_http_date(wait).unwrap().into();
                    (date - self.world.rules.graph_offset - BEGINNING).to_std().unwrap_or_default()
                },
                |wait| said_at + wait,
            );
            let wish = Wish {
                call: number,
                worker: self.life.number,
                tenant: self.tenant.clone(),
                until,
                read: true,
                recorded: None,
            };
            self.world.state().ledger.wishes.push(wish);
        }
        reply(Exchange::Answered(answered))
    }

    async fn read_back(&self, subject: &Subject) -> ReadBack {
        self.life.gate().await;
        let (before, after, fails) = {
            let mut state = self.world.state();
            let longest = if state.chance(0.05) { self.world.rules.call_timeout } else { Duration::from_millis(500) };
            let fails = state.weather.read_back_fails;
            (state.time(longest), state.time(longest), state.chance(fails))
        };
        tokio::time::sleep(before).await;
        let read = if fails {
            let wish = self.world.state().rng.u64(0..120);
            let retry_after = (wish > 60).then(|| Duration::from_secs(wish));
            ReadBack::Failed { reason: "HTTP 500".to_owned(), retry_after }
        } else {
            let state = self.world.state();
            let old = |name: &str, days: i64| RemoteAction {
                name: name.to_owned(),
                state: "done".to_owned(),
                started_at: Some(BEGINNING - TimeDelta::days(days)),
                updated_at: None,
                status_detail: None,
            };
            let mut actions = vec![old("Reprovision", 30), old("Restart", 5)];
            let wipes = state.ledger.wipes.get(&subject.device).into_iter().flatten();
            actions.extend(wipes.filter(|wipe| wipe.shows_from <= state.db.time).map(|wipe| RemoteAction {
                name: "Reprovision".to_owned(),
                state: "active".to_owned(),
                started_at: Some(wipe.started_at),
                updated_at: None,
                status_detail: None,
            }));
            // The `Date` header has whole seconds.
            let read_at = DateTime::from_timestamp(self.world.graph_now().timestamp(), 0);
            ReadBack::Seen(Seen { actions, read_at, ..Seen::default() })
        };
        tokio::time::sleep(after).await;
        self.life.gate().await;
        read
    }

    async fn remote_actions(&self, subject: &Subject) -> ReadBack {
        self.read_back(subject).await
    }
}
