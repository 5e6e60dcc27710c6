//! Faults on the command line: a file, or a line such as `429:5@2,503@4,reset-after@7`.

use std::path::Path;
use std::str::FromStr;

use super::action::AnswerShape;
use super::faults::{
    Effect, Endpoint, ErrorBody, Fault, FaultScript, RandomFaults, RetryAfter, StatusFault, WrongType,
};
use super::humane;

/// The short form, for `--help`.
pub const SYNTAX: &str = "\
Faults are a JSON file, or entries separated by commas:
  [ENDPOINT/]EFFECT[:ARGUMENT][@CALLS]

  ENDPOINT  action (default; whichever of the three, and for
            cloud-pc-reprovision the $batch or the single POST), read-back
            (both), token, list (of Cloud PCs), look-up (of bulk actions), or
            batch-item (one request inside a $batch)
  CALLS     which calls of that endpoint, counted from 1: @2, @2-5, @* for all;
            without it, the next one

Effects on a call that is not carried out:
  429, 503, ...     any status; :SECONDS, :date+30, :zero, :negative, :huge or
                    :garbage sets Retry-After
  503-bare          a status without an error body; 503-html with a proxy's page
  segment           the 400 of a tenant where the action is gone
  poison:GUID       every call that holds this device, or this Cloud PC, is a
                    400; in a $batch, that request is
  reset-before      request lost: the connection is reset
  hang              no answer, and the connection stays open

Effects on a call that is carried out:
  reset-after       answer lost: the connection is reset
  hang-after        no answer, and the connection stays open
  done-502          this status all the same; also -bare and -html
  latency:2s        answered that much later
  truncated, huge, empty, not-json, wrong-type[:string|number|array]
  in-no-bucket, in-two-buckets, surplus-id, upper-case,
  shape:wrapped|bare|empty, null-lists, missing-lists, null-empty-lists,
  missing-empty-lists

What the last three lines mean for the action's successors:
                    $batch                      bulk action
  in-no-bucket      one response is missing     one Cloud PC is never read back
  in-two-buckets    two responses that disagree nothing
  surplus-id        a response nobody asked for a Cloud PC in cloudPcIds
  null-lists,
  missing-lists     responses                   actionSummary
  null-empty-lists  nothing                     counts of zero
  missing-empty-lists  bodies that are null     counts of zero
  shape:empty       204                         204; other shapes are nothing
A single POST answers 204 without a body, which they leave as it is. null-lists
and missing-lists can also strike list and look-up, upper-case also list. A
batch-item takes a status, done or not, and loses its response by reset-before
(not done), reset-after or in-no-bucket (done).

  seed=7,rate=0.2   strikes that share of all calls with what a real network
                    shows; the same calls for the same seed";

/// Reads the file of that name if there is one, else the text itself.
pub fn read(file_or_spec: &str) -> Result<FaultScript, String> {
    let path = Path::new(file_or_spec);
    if !path.is_file() {
        return if path.extension().is_some_and(|extension| extension == "json") {
            Err(format!("{file_or_spec}: no such file"))
        } else {
            file_or_spec.parse()
        };
    }
    let text = std::fs::read_to_string(path).map_err(|error| format!("{file_or_spec}: {error}"))?;
    let script = if text.trim_start().starts_with('[') {
        serde_json::from_str(&text).map(|script| FaultScript { script, random: None })
    } else {
        serde_json::from_str(&text)
    };
    script.map_err(|error| format!("{file_or_spec}: {error}"))
}

impl FromStr for FaultScript {
    type Err = String;

    /// Entries separated by commas, each `[ENDPOINT/]EFFECT[:ARGUMENT][@CALLS]`; `simulate --help` lists them.
    fn from_str(spec: &str) -> Result<Self, String> {
        let mut script = Self::default();
        let (mut seed, mut rate) = (None, None);
        for entry in spec.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let wrong = |reason: &str| format!("fault {entry:?}: {reason}");
            if let Some(text) = entry.strip_prefix("seed=") {
                seed = Some(text.parse().map_err(|_| wrong("the seed is a whole number"))?);
            } else if let Some(text) = entry.strip_prefix("rate=") {
                let number = text.parse().ok().filter(|rate| (0.0..=1.0).contains(rate));
                rate = Some(number.ok_or_else(|| wrong("the rate lies between 0 and 1"))?);
            } else {
                let faults = entry_of(entry).map_err(|reason| wrong(&reason))?;
                if let Some(mistake) = faults.iter().find_map(Fault::mistake) {
                    return Err(wrong(&mistake));
                }
                script.script.extend(faults);
            }
        }
        script.random = match (seed, rate) {
            (seed, Some(rate)) => Some(RandomFaults { seed: seed.unwrap_or(1), rate }),
            (Some(_), None) => return Err("a seed needs a rate, such as seed=7,rate=0.2".to_owned()),
            (None, None) => None,
        };
        Ok(script)
    }
}

const ENDPOINTS: [(Endpoint, &str); 6] = [
    (Endpoint::Action, "action"),
    (Endpoint::ReadBack, "read-back"),
    (Endpoint::Token, "token"),
    (Endpoint::List, "list"),
    (Endpoint::BatchItem, "batch-item"),
    (Endpoint::LookUp, "look-up"),
];

fn entry_of(entry: &str) -> Result<Vec<Fault>, String> {
    let (rest, calls) = entry.split_once('@').map_or((entry, None), |(rest, calls)| (rest, Some(calls)));
    let (endpoint, rest) = rest.split_once('/').unwrap_or(("action", rest));
    let Some((on, _)) = ENDPOINTS.iter().find(|(_, name)| *name == endpoint) else {
        let names: Vec<&str> = ENDPOINTS.iter().map(|(_, name)| *name).collect();
        return Err(format!("{endpoint:?} is no endpoint: {}", names.join(", ")));
    };
    let (name, argument) = rest.split_once(':').map_or((rest, None), |(name, argument)| (name, Some(argument)));
    let fault = Fault::from(effect_of(name, argument)?).on(*on);
    let Some(calls) = calls else { return Ok(vec![fault]) };
    if calls == "*" {
        return Ok(vec![fault.always()]);
    }
    let (first, last) = calls.split_once('-').unwrap_or((calls, calls));
    match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first >= 1 && (first..first.saturating_add(1000)).contains(&last) => {
            Ok((first..=last).map(|nth| fault.clone().nth(nth)).collect())
        }
        _ => Err(format!("@{calls}: give the call's number from 1, a range such as @2-5 (at most 1000), or @*")),
    }
}

fn effect_of(name: &str, argument: Option<&str>) -> Result<Effect, String> {
    let unit = match name {
        "hang" => Some(Effect::Hang),
        "hang-after" => Some(Effect::HangAfter),
        "reset-before" => Some(Effect::ResetBefore),
        "reset-after" => Some(Effect::ResetAfter),
        "truncated" => Some(Effect::Truncated),
        "huge" => Some(Effect::Huge),
        "empty" => Some(Effect::Empty),
        "not-json" => Some(Effect::NotJson),
        "in-no-bucket" => Some(Effect::InNoBucket),
        "in-two-buckets" => Some(Effect::InTwoBuckets),
        "surplus-id" => Some(Effect::SurplusId),
        "upper-case" => Some(Effect::UpperCase),
        "null-lists" => Some(Effect::NullLists),
        "missing-lists" => Some(Effect::MissingLists),
        "null-empty-lists" => Some(Effect::NullEmptyLists),
        "missing-empty-lists" => Some(Effect::MissingEmptyLists),
        "segment" => Some(Effect::segment_not_found()),
        _ => None,
    };
    if let Some(effect) = unit {
        return argument.map_or(Ok(effect), |_| Err(format!("{name} takes no argument")));
    }
    match (name, argument) {
        ("latency", Some(text)) => humane::duration(text).map(Effect::Latency),
        ("latency", None) => Err("say how much, such as latency:2s".to_owned()),
        ("poison", Some(text)) => text.parse().map(Effect::Poison).map_err(|error| format!("{error}")),
        ("poison", None) => Err("say which device, such as poison:30d0e128-de93-41dc-89ec-33d84bb662a0".to_owned()),
        ("wrong-type", None | Some("string")) => Ok(Effect::WrongType(WrongType::String)),
        ("wrong-type", Some("number")) => Ok(Effect::WrongType(WrongType::Number)),
        ("wrong-type", Some("array")) => Ok(Effect::WrongType(WrongType::Array)),
        ("wrong-type", Some(_)) => Err("the wrong type is string, number or array".to_owned()),
        ("shape", Some("wrapped")) => Ok(Effect::Shape(AnswerShape::Wrapped)),
        ("shape", Some("bare")) => Ok(Effect::Shape(AnswerShape::Bare)),
        ("shape", Some("empty")) => Ok(Effect::Shape(AnswerShape::Empty)),
        ("shape", _) => Err("the shape is wrapped, bare or empty".to_owned()),
        _ => match name.strip_prefix("done-") {
            Some(name) => status_of(name, argument).map(Effect::DoneThenStatus),
            None => status_of(name, argument).map(Effect::Status),
        },
    }
}

fn status_of(name: &str, argument: Option<&str>) -> Result<StatusFault, String> {
    let (digits, body) = match name.split_once('-') {
        Some((digits, "bare")) => (digits, ErrorBody::None),
        Some((digits, "html")) => (digits, ErrorBody::Html),
        _ => (name, ErrorBody::Service),
    };
    let code = digits.parse().map_err(|_| format!("{name:?} is no effect; see simulate --help for the list"))?;
    let retry_after = match argument {
        None | Some("missing") => RetryAfter::Missing,
        Some("zero") => RetryAfter::Zero,
        Some("negative") => RetryAfter::Negative,
        Some("huge") => RetryAfter::Huge,
        Some("garbage") => RetryAfter::Garbage,
        Some(text) => {
            let number = |text: &str| text.parse::<i64>().ok();
            let date = text.strip_prefix("date").map(|seconds| number(seconds).map(RetryAfter::Date));
            let parsed = date.unwrap_or_else(|| text.parse().ok().map(RetryAfter::Seconds));
            parsed.ok_or("Retry-After is a number of seconds, date+30, zero, negative, huge, garbage or missing")?
        }
    };
    Ok(StatusFault { code, retry_after, body, ..StatusFault::default() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_short_form_says_the_same_as_the_json() {
        let device = "30d0e128-de93-41dc-89ec-33d84bb662a0";
        for (spec, json) in [
            ("429:5@2", r#"[{"nth": 2, "effect": {"status": {"code": 429, "retry_after": {"seconds": 5}}}}]"#),
            ("503:date+30", r#"[{"effect": {"status": {"code": 503, "retry_after": {"date": 30}}}}]"#),
            ("429:huge@*", r#"[{"times": "always", "effect": {"status": {"code": 429, "retry_after": "huge"}}}]"#),
            ("reset-after@2-3", r#"[{"nth": 2, "effect": "reset_after"}, {"nth": 3, "effect": "reset_after"}]"#),
            ("token/503-bare", r#"[{"on": "token", "effect": {"status": {"code": 503, "body": "none"}}}]"#),
            (
                "read-back/done-504-html@1",
                r#"[{"on": "read-back", "nth": 1, "effect": {"done_then_status": {"code": 504, "body": "html"}}}]"#,
            ),
            (
                "latency:2s,action/shape:bare@3",
                r#"[{"effect": {"latency": "2s"}}, {"nth": 3, "effect": {"shape": "bare"}}]"#,
            ),
            (
                "batch-item/429:7@2",
                r#"[{"on": "batch-item", "nth": 2, "effect": {"status": {"code": 429, "retry_after": {"seconds": 7}}}}]"#,
            ),
            (
                "list/upper-case,look-up/empty",
                r#"[{"on": "list", "effect": "upper_case"}, {"on": "look-up", "effect": "empty"}]"#,
            ),
            ("wrong-type:number@1", r#"[{"nth": 1, "effect": {"wrong_type": "number"}}]"#),
            (&format!("poison:{device}"), &format!(r#"[{{"effect": {{"poison": "{device}"}}}}]"#)),
        ] {
            let short: FaultScript = spec.parse().unwrap();
            assert_eq!(short.script, serde_json::from_str::<Vec<Fault>>(json).unwrap(), "{spec}");
        }
        let random = "seed=7,rate=0.2".parse::<FaultScript>().unwrap().random;
        assert_eq!(random, Some(RandomFaults { seed: 7, rate: 0.2 }));
    }

    #[test]
    fn what_is_wrong_with_an_entry_is_said_with_the_entry() {
        for (spec, part) in [
            ("503,explode@2", "\"explode@2\": \"explode\" is no effect"),
            ("503@0", "from 1"),
            ("503@5-2", "a range such as"),
            ("99", "no HTTP status"),
            ("429:soon", "Retry-After is a number"),
            ("graph/503", "no endpoint"),
            ("token/in-no-bucket", "can only strike the action"),
            ("batch-item/huge", "no connection and no time of its own"),
            ("hang:2s", "takes no argument"),
            ("latency:2", "is not a duration"),
            ("poison:x", "not an Intune managed device ID"),
            ("seed=7", "needs a rate"),
            ("rate=2", "between 0 and 1"),
        ] {
            let error = spec.parse::<FaultScript>().unwrap_err();
            assert!(error.contains(part), "{spec}: {error}");
        }
    }

    #[test]
    fn the_help_text_lists_each_effect_that_is_understood() {
        for name in [
            "503-bare",
            "503-html",
            "segment",
            "reset-before",
            "reset-after",
            "hang",
            "hang-after",
            "done-502",
            "latency:2s",
            "truncated",
            "huge",
            "empty",
            "not-json",
            "wrong-type",
            "in-no-bucket",
            "in-two-buckets",
            "surplus-id",
            "upper-case",
            "null-lists",
            "missing-lists",
            "null-empty-lists",
            "missing-empty-lists",
        ] {
            assert!(SYNTAX.contains(name), "{name}");
            assert_eq!(name.parse::<FaultScript>().map(|script| script.script.len()), Ok(1), "{name}");
        }
    }
}
