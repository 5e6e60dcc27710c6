//! `POST deviceManagement/virtualEndpoint/cloudPCs/{id}/reprovision`: one Cloud PC, the only one of the actions in v1.0.

use serde_json::Value;

use super::answer::{Answer, Call, Content};
use super::faults::Effect;
use super::fleet::Behaviour;
use super::interface::Interface;
use super::ledger::Attempt;
use super::route::Received;
use super::token::{READ_WRITE, authorise};
use super::verdict::Verdict;
use super::{Shared, action, cloud_pcs, unpoisoned};

/// The body's parameters, and what each may be.
const PARAMETERS: [(&str, &[&str]); 2] =
    [("osVersion", &["windows10", "windows11"]), ("userAccountType", &["standardUser", "administrator"])];

/// Checks the request as Graph does, and reprovisions.
pub(super) fn carry_out(sim: &Shared, call: &Call, received: &Received<'_>, id: &str, verdict: &Verdict) -> Answer {
    let refused = authorise(sim, call, received.authorization, &[READ_WRITE])
        .and_then(|()| Interface::CloudPcReprovision.refuse_if_gone(sim, call))
        .and_then(|()| action::admit(sim, call));
    if let Err(refusal) = refused {
        return refusal;
    }
    if let Err(message) = check(received) {
        return Answer::graph_error(call, 400, "BadRequest", &message);
    }
    if let Some(Effect::Poison(_)) = verdict.effect {
        return Answer::graph_error(call, 400, "BadRequest", &format!("Invalid Cloud PC id '{id}'."));
    }
    let (id, device) = match cloud_pcs::find(sim, call, id) {
        Ok(found) => found,
        Err(refusal) => return refusal,
    };
    match device.behaviour {
        Behaviour::Succeeds | Behaviour::FailsLater => {}
        Behaviour::NotSupported => {
            let message = format!("The Cloud PC '{id}' does not support this action.");
            return Answer::graph_error(call, 400, "NotSupported", &message);
        }
        Behaviour::Fails | Behaviour::NotFound => {
            let message = format!("The Cloud PC '{id}' is in a state in which it cannot be reprovisioned.");
            return Answer::graph_error(call, 409, "Conflict", &message);
        }
    }
    let mut state = unpoisoned(&sim.state);
    let attempt = Attempt {
        managed_device_id: device.managed_device_id,
        cloud_pc_id: Some(id),
        at: sim.clock.now(),
        hidden: false,
    };
    let entry = state.ledger.record(attempt, call.client_request_id.clone());
    Answer { content: Content::Nothing, performed: vec![entry], ..Answer::json(204, Value::Null) }
}

fn check(received: &Received<'_>) -> Result<(), String> {
    if received.body.is_empty() {
        return Ok(());
    }
    let body = action::json_object(received)?;
    for (name, value) in body.iter().filter(|(name, _)| !name.contains('@')) {
        let Some((_, members)) = PARAMETERS.iter().find(|(known, _)| known == name) else {
            return Err(action::no_parameter(name, "reprovision"));
        };
        if !value.is_null() && !value.as_str().is_some_and(|value| members.contains(&value)) {
            return Err(format!("The value {value} is not valid for the parameter '{name}'."));
        }
    }
    Ok(())
}
