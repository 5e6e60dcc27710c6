//! JSON as Graph speaks it: the request that leaves and what an answer's body holds.

use chrono::DateTime;
use serde_json::{Map, Value};

use crate::domain::answer::{Body, BucketLists, GraphError};
use crate::domain::id::ManagedDeviceId;
use crate::domain::read_back::RemoteAction;

/// The action's path below the base URL.
/// Source: Microsoft's reference page "managedDevice: bulkReprovisionCloudPc" (beta).
pub(super) const ACTION_PATH: &str = "/beta/deviceManagement/managedDevices/bulkReprovisionCloudPc";

/// The request body.
pub(super) fn request_body(devices: &[ManagedDeviceId]) -> Vec<u8> {
    serde_json::json!({ "managedDeviceIds": devices }).to_string().into_bytes()
}

/// What the body of a 2xx holds. All of Graph's success shapes: wrapped in `value` (the reference page), bare (what
/// Microsoft's SDK reads), and nothing at all (an earlier reference page's 204).
pub(super) fn buckets(body: &[u8]) -> Body {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Body::NoBuckets("the body is empty".to_owned());
    }
    let Ok(Value::Object(top)) = serde_json::from_slice::<Value>(body) else {
        return Body::NoBuckets("the body is no JSON object".to_owned());
    };
    let lists = match top.get("value") {
        Some(Value::Object(inner)) if !has_a_list(&top) => inner,
        _ => &top,
    };
    if !has_a_list(lists) {
        return Body::NoBuckets("the body has none of the four lists".to_owned());
    }
    match read_lists(lists) {
        Ok(lists) => Body::Buckets(lists),
        Err(why) => Body::NoBuckets(why),
    }
}

const LISTS: [&str; 4] = ["successfulDeviceIds", "failedDeviceIds", "notFoundDeviceIds", "notSupportedDeviceIds"];

fn has_a_list(object: &Map<String, Value>) -> bool {
    LISTS.iter().any(|name| object.contains_key(*name))
}

fn read_lists(object: &Map<String, Value>) -> Result<BucketLists, String> {
    let mut read = LISTS.iter().map(|name| match object.get(*name) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => Ok(items.iter().map(text).collect()),
        // Half of an answer would put every device of this list in doubt anyway, and says that the rest is odd too.
        Some(_) => Err(format!("{name} is not a list")),
    });
    let mut next = || read.next().unwrap_or_else(|| Ok(Vec::new()));
    Ok(BucketLists { successful: next()?, failed: next()?, not_found: next()?, not_supported: next()? })
}

fn text(item: &Value) -> String {
    item.as_str().map_or_else(|| item.to_string(), str::to_owned)
}

/// Graph's error object, if the body is one.
pub(super) fn error(body: &[u8]) -> Option<GraphError> {
    error_in(&serde_json::from_slice(body).ok()?)
}

/// The same of a body that is read already.
pub(super) fn error_in(body: &Value) -> Option<GraphError> {
    let error = body.get("error")?;
    let field = |name: &str| error.get(name).and_then(Value::as_str).map(str::to_owned);
    Some(GraphError { code: field("code")?, message: field("message").unwrap_or_default() })
}

/// The device's remote actions, if the body is the whole list of them; if not, why. An entry that is odd keeps what can be
/// read of it, for a Reprovision without a start time is still one.
pub(super) fn remote_actions(body: &[u8]) -> Result<Vec<RemoteAction>, &'static str> {
    const NO_LIST: &str = "the body is no list of remote actions";
    let body: Value = serde_json::from_slice(body).map_err(|_| NO_LIST)?;
    let action = |entry: &Value| {
        let field = |name: &str| entry.get(name).and_then(Value::as_str);
        let time = |name: &str| field(name).and_then(|at| DateTime::parse_from_rfc3339(at).ok()).map(Into::into);
        RemoteAction {
            name: field("actionName").unwrap_or_default().to_owned(),
            state: field("actionState").unwrap_or("of unknown state").to_owned(),
            started_at: time("startDateTime"),
            updated_at: time("lastUpdatedDateTime"),
            status_detail: ["statusDetail", "statusDetails"].iter().find_map(|name| status_detail(entry.get(*name)?)),
        }
    };
    let list = body.get("value").and_then(Value::as_array).ok_or(NO_LIST)?;
    // What does not stand on this page may stand on the next: this one proves nothing.
    match body.get("@odata.nextLink") {
        None | Some(Value::Null) => Ok(list.iter().map(action).collect()),
        Some(_) => Err("the list of remote actions goes on on a further page"),
    }
}

/// `cloudPcStatusDetail` (or `cloudPcStatusDetails`, as it was called): its code and its message.
fn status_detail(detail: &Value) -> Option<String> {
    let field = |name: &str| detail.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    match (field("code"), field("message")) {
        (Some(code), Some(message)) => Some(format!("{code}: {message}")),
        (one, other) => one.or(other).map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(successful: &[&str], failed: &[&str]) -> Body {
        let own = |items: &[&str]| items.iter().map(|&item| item.to_owned()).collect();
        Body::Buckets(BucketLists { successful: own(successful), failed: own(failed), ..BucketLists::default() })
    }

    #[test]
    fn the_lists_are_read_wrapped_and_bare_with_any_of_them_missing_or_null() {
        let wrapped = br##"{"value":{"@odata.type":"#microsoft.graph.cloudPcBulkRemoteActionResult","successfulDeviceIds":["a"],"failedDeviceIds":["b"],"notFoundDeviceIds":[],"notSupportedDeviceIds":null}}"##;
        let bare = br#"{"@odata.context":"x","successfulDeviceIds":["a"],"failedDeviceIds":["b"]}"#;
        assert_eq!(buckets(wrapped), lists(&["a"], &["b"]));
        assert_eq!(buckets(bare), lists(&["a"], &["b"]));
        assert_eq!(buckets(br#"{"successfulDeviceIds":null}"#), lists(&[], &[]));
        assert_eq!(buckets(br#"{"successfulDeviceIds":["a",7,null]}"#), lists(&["a", "7", "null"], &[]));
    }

    #[test]
    fn a_body_that_names_no_bucket_says_why() {
        for (body, why) in [
            ("", "empty"),
            (" \r\n", "empty"),
            ("[]", "no JSON object"),
            ("<html>", "no JSON object"),
            (r#"{"successfulDeviceIds":["a"#, "no JSON object"),
            ("{}", "none of the four"),
            (r#"{"value":[]}"#, "none of the four"),
            (r#"{"value":{"successfulDeviceIds":"a"}}"#, "successfulDeviceIds is not a list"),
        ] {
            let Body::NoBuckets(said) = buckets(body.as_bytes()) else { panic!("{body}") };
            assert!(said.contains(why), "{body}: {said}");
        }
    }

    #[test]
    fn remote_actions_are_read_with_graphs_seven_digits_and_whatever_is_missing() {
        let body = br#"{"value":[{"actionName":"Reprovision","actionState":"done","startDateTime":"2026-11-23T10:00:00.1234567Z"},{"actionName":"Reprovision"},7]}"#;
        let actions = remote_actions(body).unwrap();
        assert_eq!(actions[0].started_at.unwrap().timestamp_millis() % 1000, 123);
        assert_eq!((actions[1].name.as_str(), actions[1].started_at), ("Reprovision", None));
        assert_eq!(actions[2].name, "");
        for other in ["", "{}", r#"{"value":{}}"#, r#"{"error":{"code":"x"}}"#] {
            assert!(remote_actions(other.as_bytes()).is_err(), "{other}");
        }
        let paged = br#"{"value":[],"@odata.nextLink":"https://graph.microsoft.com/beta/more"}"#;
        assert!(remote_actions(paged).unwrap_err().contains("further page"));
    }

    #[test]
    fn an_error_is_graphs_own_only_with_a_code() {
        let graph = br#"{"error":{"code":"TooManyRequests","message":"slow down","innererror":{}}}"#;
        let expected = GraphError { code: "TooManyRequests".to_owned(), message: "slow down".to_owned() };
        assert_eq!(error(graph), Some(expected));
        for other in ["<html>503</html>", "{}", r#"{"error":"x"}"#, r#"{"error":{"message":"x"}}"#] {
            assert_eq!(error(other.as_bytes()), None, "{other}");
        }
    }
}
