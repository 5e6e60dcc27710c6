//! Which of the actions this tenant answers, found out without reprovisioning anything: a list that is read, and requests that
//! an interface which exists refuses, because they name nothing.
//!
//! No probe can name a device: what each sends is fixed here. It needs no fence therefore, and the engine never asks.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use super::caller::Answer;
use super::{GraphClient, wire};
use crate::clock::host_time;
use crate::domain::action::Action;
use crate::domain::answer::{Body, Exchange, HttpAnswer, Meaning, meaning, no_such_segment};
use crate::domain::id::CallId;
use crate::domain::lifecycle::BlockCode;

/// What a probe found of one action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// Whether the tenant answers it.
    pub said: Said,
    /// Graph's clock, where an answer showed it.
    pub clock: Option<Offset>,
}

/// Whether a tenant answers an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// It does.
    Answers,
    /// It does not: what was seen.
    Gone(String),
    /// It refuses this app, or its token.
    NotAllowed(String),
    /// It throttles, so that nothing can be told now.
    NotNow(String),
    /// Graph, or what stands before it, gave no answer that tells.
    Untold(String),
}

/// How far another clock is ahead of this host's (negative: behind), and how wrong that may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offset {
    /// The difference.
    pub ahead: TimeDelta,
    /// It lies within this, either way.
    pub within: TimeDelta,
}

impl Offset {
    /// Of a clock that showed `there` at some time between `asked` and `answered` of this host's.
    pub fn between(asked: DateTime<Utc>, answered: DateTime<Utc>, there: DateTime<Utc>) -> Self {
        let half = (answered - asked) / 2;
        Self { ahead: there - (asked + half), within: half.max(TimeDelta::zero()) }
    }
}

/// A request that asks for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Probe {
    /// The first entry of a list is read.
    List(&'static str),
    /// Reprovisions of no device: refused for what it holds, or carried out for none.
    OfNone(&'static str, &'static str),
    /// A reprovision of the Cloud PC whose ID is all zeros, which is none: refused for what the path names.
    OfNobody(&'static str, &'static str),
}

const CLOUD_PCS: Probe = Probe::List("/v1.0/deviceManagement/virtualEndpoint/cloudPCs?$select=id&$top=1");
const BULK_ACTIONS: Probe = Probe::List("/beta/deviceManagement/virtualEndpoint/bulkActions?$top=1");
const BULK_REPROVISION: Probe = Probe::OfNone(wire::ACTION_PATH, r#"{"managedDeviceIds":[]}"#);
const REPROVISION: Probe = Probe::OfNobody(
    "/v1.0/deviceManagement/virtualEndpoint/cloudPCs/00000000-0000-0000-0000-000000000000/reprovision",
    "{}",
);

/// In the order in which they are made, as long as each is answered. Who takes Cloud PC IDs must be able to read the list of them.
fn probes(action: Action) -> &'static [Probe] {
    match action {
        Action::BulkReprovisionCloudPc => &[BULK_REPROVISION],
        Action::CloudPcBulkAction => &[CLOUD_PCS, BULK_ACTIONS],
        Action::CloudPcReprovision => &[CLOUD_PCS, REPROVISION],
    }
}

impl GraphClient {
    /// Whether the tenant answers `action`. Reprovisions nothing: what is posted names no device.
    pub async fn probe(&self, action: Action) -> Probed {
        let mut found = Probed { said: Said::Answers, clock: None };
        for probe in probes(action) {
            let asked = host_time();
            let exchange = self.make(*probe).await;
            let answered = host_time();
            if let Exchange::Answered(HttpAnswer { date: Some(date), .. }) = &exchange {
                // A `Date` has whole seconds: the clock showed something from there to a second later.
                let half = TimeDelta::milliseconds(500);
                let offset = Offset::between(asked, answered, *date + half);
                found.clock = Some(Offset { within: offset.within + half, ..offset });
            }
            found.said = said(*probe, &exchange, action, answered);
            if found.said != Said::Answers {
                break;
            }
        }
        found
    }

    async fn make(&self, probe: Probe) -> Exchange {
        let read = |answer: &Answer, body: fn(&[u8]) -> Body| {
            Exchange::Answered(answer.http(answer.whole().map_or_else(Body::NoBuckets, body)))
        };
        match probe {
            Probe::List(path) => {
                let url = match self.caller.url(path) {
                    Ok(url) => url,
                    Err(error) => return Exchange::NotSent { reason: format!("graph_url: {error}") },
                };
                match self.caller.get(url).await {
                    Ok(answer) => read(&answer, listed),
                    Err(unread) => match unread.answer {
                        Some(answer) => Exchange::Answered(*answer),
                        None => Exchange::Lost { reason: unread.reason },
                    },
                }
            }
            Probe::OfNone(path, body) | Probe::OfNobody(path, body) => {
                let open = Box::new(|| Ok(()));
                match self.caller.post(path, CallId::fresh(), body.as_bytes().to_vec(), open).await {
                    Ok(answer) => read(&answer, wire::buckets),
                    Err(exchange) => exchange,
                }
            }
        }
    }
}

/// A list, be it an empty one, as a body that is known.
fn listed(body: &[u8]) -> Body {
    let list = serde_json::from_slice::<Value>(body).is_ok_and(|body| body.get("value").is_some_and(Value::is_array));
    if list { Body::Listed(Vec::new()) } else { Body::NoBuckets("the body is no list".to_owned()) }
}

fn said(probe: Probe, exchange: &Exchange, action: Action, received_at: DateTime<Utc>) -> Said {
    if let Exchange::Answered(answer) = exchange {
        match (probe, answer.status, &answer.body) {
            (Probe::List(_), 200..=299, Body::Listed(_))
            | (Probe::OfNone(..), 204, _)
            | (Probe::OfNone(..), 200..=299, Body::Buckets(_)) => return Said::Answers,
            (Probe::List(_), 200..=299, Body::NoBuckets(why)) => {
                return Said::Untold(format!("HTTP {}, but {why}", answer.status));
            }
            // Graph itself speaks, of the Cloud PC and not of the path.
            (Probe::OfNobody(..), 404, _) if answer.error.is_some() && !no_such_segment(answer) => {
                return Said::Answers;
            }
            (Probe::OfNone(..) | Probe::OfNobody(..), 200..=299, _) => {
                return Said::Untold(format!("HTTP {}, which Graph does not give to such a request", answer.status));
            }
            _ => {}
        }
    }
    // The token has just been fetched: a refusal is not its age.
    match (meaning(exchange, action, &[], true, received_at), exchange) {
        (Meaning::Refused { .. }, Exchange::Answered(answer)) if answer.error.is_some() && !is_list(probe) => {
            Said::Answers
        }
        (Meaning::Blocked { code: BlockCode::ActionUnavailable, .. }, Exchange::Answered(answer)) => {
            Said::Gone(answer.seen())
        }
        (Meaning::Blocked { code: BlockCode::Unauthorized | BlockCode::Forbidden, .. }, Exchange::Answered(answer)) => {
            Said::NotAllowed(answer.seen())
        }
        (Meaning::Throttled { reason, .. }, _) => Said::NotNow(reason),
        (Meaning::Answered { .. }, _) => Said::Untold("an answer to another question".to_owned()),
        (
            Meaning::Refused { reason }
            | Meaning::Blocked { reason, .. }
            | Meaning::TokenRefused { reason }
            | Meaning::Unknown { reason }
            | Meaning::NotSent { reason },
            _,
        ) => Said::Untold(reason),
    }
}

fn is_list(probe: Probe) -> bool {
    matches!(probe, Probe::List(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::answer::GraphError;

    const NOBODY: &str = "00000000-0000-0000-0000-000000000000";

    #[test]
    fn no_probe_names_a_device() {
        for probe in Action::ALL.iter().flat_map(|action| probes(*action)) {
            let (path, body) = match probe {
                Probe::List(path) => (*path, "{}"),
                Probe::OfNone(path, body) | Probe::OfNobody(path, body) => (*path, *body),
            };
            assert!(!path.contains("$batch"), "{path}");
            for segment in path.split(['/', '?']).filter(|segment| uuid::Uuid::try_parse(segment).is_ok()) {
                assert_eq!(segment, NOBODY);
            }
            let body: Value = serde_json::from_str(body).unwrap();
            let named = body.as_object().unwrap().values().filter_map(Value::as_array).flatten().count();
            assert_eq!(named, 0, "{body}");
            assert!(body.as_object().unwrap().keys().all(|key| key == "managedDeviceIds"), "{body}");
        }
    }

    fn answer(status: u16, error: Option<(&str, &str)>) -> Exchange {
        let error = error.map(|(code, message)| GraphError { code: code.to_owned(), message: message.to_owned() });
        let body = Body::NoBuckets("the body is no JSON object".to_owned());
        Exchange::Answered(HttpAnswer { status, retry_after: None, date: None, error, body })
    }

    #[test]
    fn what_an_answer_says_of_the_action_is_told_by_status_and_graphs_own_word() {
        let segment = Some(("BadRequest", "Resource not found for the segment 'reprovision'."));
        let word = Some(("ResourceNotFound", "No such Cloud PC."));
        let (of_none, of_nobody, list) = (BULK_REPROVISION, REPROVISION, CLOUD_PCS);
        for (probe, status, error, expected) in [
            (of_none, 400, word, "answers"),
            (of_none, 204, None, "answers"),
            // A login page of a proxy.
            (of_none, 200, None, "untold"),
            (of_none, 400, None, "untold"),
            (of_none, 400, segment, "gone"),
            (of_none, 404, word, "gone"),
            (of_none, 405, word, "gone"),
            (of_none, 410, None, "gone"),
            (of_none, 501, None, "gone"),
            (of_none, 401, word, "not allowed"),
            (of_none, 403, word, "not allowed"),
            (of_none, 429, word, "not now"),
            (of_none, 503, word, "not now"),
            (of_none, 503, None, "untold"),
            (of_none, 302, None, "untold"),
            (of_nobody, 404, word, "answers"),
            (of_nobody, 400, word, "answers"),
            (of_nobody, 404, segment, "gone"),
            (of_nobody, 404, None, "gone"),
            (of_nobody, 204, None, "untold"),
            (list, 200, None, "untold"),
            (list, 400, word, "untold"),
            (list, 404, word, "gone"),
        ] {
            let found = match said(probe, &answer(status, error), Action::CloudPcReprovision, host_time()) {
                Said::Answers => "answers",
                Said::Gone(_) => "gone",
                Said::NotAllowed(_) => "not allowed",
                Said::NotNow(_) => "not now",
                Said::Untold(_) => "untold",
            };
            assert_eq!(found, expected, "{probe:?} {status} {error:?}");
        }
        assert!(matches!(listed(br#"{"value":[]}"#), Body::Listed(_)));
        assert!(matches!(listed(b"<html>"), Body::NoBuckets(_)));
    }

    #[test]
    fn a_clock_is_taken_to_have_shown_its_time_half_way() {
        let at = |millis| DateTime::from_timestamp_millis(millis).unwrap();
        let offset = Offset::between(at(1000), at(1200), at(5100));
        assert_eq!(offset, Offset { ahead: TimeDelta::milliseconds(4000), within: TimeDelta::milliseconds(100) });
    }
}
