//! What is the simulator's own and not Graph's: `GET /simulator/ledger`, `/simulator/requests`, `/simulator/traffic` and
//! `/simulator/fleet`, and `POST /simulator/faults` and `/simulator/tokens`. It needs no token: it is for tests, on the loopback only.

use axum::http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answer, Call};
use super::faults::Fault;
use super::{Shared, unpoisoned};

/// The body of `POST /simulator/tokens`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Steer {
    /// The roles of tokens issued from now on.
    #[serde(default)]
    roles: Option<Vec<String>>,
    /// Expires all tokens issued so far.
    #[serde(default)]
    expire: bool,
}

pub(super) fn answer(sim: &Shared, call: &Call, method: &Method, what: &str, body: &[u8]) -> Answer {
    match (method.as_str(), what) {
        ("GET", "ledger") => Answer::json(200, json!(unpoisoned(&sim.state).ledger.entries())),
        ("GET", "requests") => Answer::json(200, json!(unpoisoned(&sim.state).ledger.requests())),
        ("GET", "traffic") => Answer::json(200, json!(unpoisoned(&sim.state).traffic.latest())),
        ("GET", "fleet") => Answer::json(200, json!(sim.fleet.devices())),
        ("POST", "faults") => match faults_in(body) {
            Ok(faults) => {
                let count = faults.len();
                let mut state = unpoisoned(&sim.state);
                for fault in faults {
                    state.faults.add(fault);
                }
                Answer::json(200, json!({"added": count}))
            }
            Err(message) => Answer::graph_error(call, 400, "BadRequest", &message),
        },
        ("POST", "tokens") => match serde_json::from_slice::<Steer>(body) {
            Ok(steer) => {
                let mut state = unpoisoned(&sim.state);
                if let Some(roles) = steer.roles {
                    state.tokens.roles = roles;
                }
                if steer.expire {
                    state.tokens.expire(call.at);
                }
                Answer::json(200, json!({"roles": state.tokens.roles}))
            }
            Err(error) => Answer::graph_error(call, 400, "BadRequest", &error.to_string()),
        },
        _ => {
            let message = format!(
                "The simulator has no {method} /simulator/{what}: GET ledger, requests, traffic, fleet; POST faults, tokens."
            );
            Answer::graph_error(call, 404, "ResourceNotFound", &message)
        }
    }
}

/// One entry, or a list of them.
fn faults_in(body: &[u8]) -> Result<Vec<Fault>, String> {
    let value: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let list = match value {
        Value::Array(list) => list,
        one => vec![one],
    };
    let mut faults = Vec::new();
    for (index, entry) in list.into_iter().enumerate() {
        let fault: Fault = serde_json::from_value(entry).map_err(|error| format!("entry {}: {error}", index + 1))?;
        if let Some(mistake) = fault.mistake() {
            return Err(format!("entry {}: {mistake}", index + 1));
        }
        faults.push(fault);
    }
    Ok(faults)
}
