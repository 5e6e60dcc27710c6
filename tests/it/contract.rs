//! What Microsoft publishes of Graph v1.0 (`tests/contract/graph-v1.0.json`), held against what the simulator answers and
//! against what a client asks. Beta has no contract: what is called there, only Microsoft's SDK and pages describe.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use chrono::DateTime;
use reprovisiond::simulator::{Behaviour, Device, Options, Simulator, Throttle};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

#[derive(Deserialize)]
struct Schema {
    singletons: BTreeMap<String, String>,
    navigation: BTreeMap<String, BTreeMap<String, String>>,
    entities: BTreeMap<String, Entity>,
    actions: BTreeMap<String, Action>,
    enums: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
struct Entity {
    base: Option<String>,
    properties: BTreeMap<String, Property>,
}

#[derive(Deserialize)]
struct Property {
    #[serde(rename = "type")]
    kind: String,
    nullable: bool,
}

#[derive(Deserialize)]
struct Action {
    bound_to: String,
    parameters: BTreeMap<String, String>,
}

static SCHEMA: LazyLock<Schema> =
    LazyLock::new(|| serde_json::from_str(include_str!("../contract/graph-v1.0.json")).unwrap());

/// Whether a request could have been written from the schema; true if the schema covers it, false for a request to beta.
pub(crate) fn check_request(method: &str, path: &str, body: &str) -> Result<bool, String> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let mut segments = path.trim_start_matches('/').split('/');
    match segments.next() {
        Some("v1.0") => {}
        Some("beta") => return Ok(false),
        version => return Err(format!("{version:?} is no version of Graph")),
    }
    let segments: Vec<&str> = segments.collect();
    if segments == ["$batch"] {
        return check_batch(method, body).map(|()| true);
    }
    let (kind, rest) = follow(&segments)?;
    match rest {
        None if method == "GET" && body.is_empty() => check_query(&kind, query).map(|()| true),
        Some(action) if method == "POST" && query.is_empty() => check_action(&kind, action, body).map(|()| true),
        _ => Err(format!("the schema has no {method} {path}?{query} with the body {body:?}")),
    }
}

/// Holds everything that was asked of a simulator against the schema; how many of the requests it covers.
pub(crate) fn check_recorded(simulator: &Simulator) -> usize {
    let covered = simulator.traffic().into_iter().filter(|request| {
        let verdict = check_request(&request.method, &request.path, &request.body);
        verdict.unwrap_or_else(|reason| panic!("{request:?}: {reason}"))
    });
    covered.count()
}

/// From the singleton along the navigation; a key follows a collection. What is left over is an action.
fn follow<'a>(segments: &[&'a str]) -> Result<(String, Option<&'a str>), String> {
    let (first, rest) = segments.split_first().ok_or("no path")?;
    let mut kind = SCHEMA.singletons.get(*first).ok_or_else(|| format!("no singleton {first}"))?.clone();
    let mut rest = rest.iter();
    while let Some(&segment) = rest.next() {
        if let Some(item) = kind.strip_prefix("Collection(") {
            Uuid::try_parse(segment).map_err(|_| format!("{segment} is no key of a Cloud PC"))?;
            kind = String::from(item.trim_end_matches(')'));
        } else if let Some(next) = SCHEMA.navigation.get(&kind).and_then(|navigation| navigation.get(segment)) {
            kind.clone_from(next);
        } else if rest.len() == 0 {
            return Ok((kind, Some(segment)));
        } else {
            return Err(format!("{kind} has no {segment}"));
        }
    }
    Ok((kind, None))
}

fn check_query(kind: &str, query: &str) -> Result<(), String> {
    let known = properties(kind.trim_start_matches("Collection(").trim_end_matches(')'));
    let known = |name: &str| known.contains_key(name).then_some(()).ok_or_else(|| format!("{kind} has no {name}"));
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match name.as_ref() {
            "$select" => value.split(',').try_for_each(known)?,
            "$filter" => known(value.split(' ').next().unwrap_or_default())?,
            "$top" => drop(value.parse::<u16>().map_err(|error| error.to_string())?),
            "$count" => drop(value.parse::<bool>().map_err(|error| error.to_string())?),
            "$skiptoken" => {}
            other => return Err(format!("{other} is not used here")),
        }
    }
    Ok(())
}

fn check_action(kind: &str, action: &str, body: &str) -> Result<(), String> {
    let known = SCHEMA.actions.get(action).filter(|known| known.bound_to == kind);
    let known = known.ok_or_else(|| format!("{kind} has no action {action}"))?;
    let body: Value = match body {
        "" => json!({}),
        body => serde_json::from_str(body).map_err(|error| error.to_string())?,
    };
    for (name, value) in body.as_object().ok_or("the body is no object")? {
        let kind = known.parameters.get(name).ok_or_else(|| format!("{action} has no parameter {name}"))?;
        check_value(kind, true, value).map_err(|reason| format!("{name}: {reason}"))?;
    }
    Ok(())
}

/// Each request inside is one that could stand by itself.
fn check_batch(method: &str, body: &str) -> Result<(), String> {
    let body: Value = serde_json::from_str(body).map_err(|error| error.to_string())?;
    let requests = body["requests"].as_array().filter(|requests| method == "POST" && requests.len() <= 20);
    for request in requests.ok_or("no batch")? {
        let text = |name: &str| request[name].as_str().ok_or_else(|| format!("{request}: no {name}"));
        let inner = request.get("body").map(Value::to_string).unwrap_or_default();
        let typed = request["headers"].as_object().is_some_and(|headers| {
            headers.iter().any(|(name, value)| name.eq_ignore_ascii_case("content-type") && value == "application/json")
        });
        if !inner.is_empty() && !typed {
            return Err(format!("{request}: a body needs its Content-Type"));
        }
        text("id")?;
        let url = text("url")?;
        check_request(text("method")?, &format!("/v1.0/{}", url.trim_start_matches('/')), &inner)
            .map_err(|reason| format!("{request}: {reason}"))?;
    }
    Ok(())
}

/// Whether an answered entity has only what the schema has, in its types.
fn check_entity(kind: &str, entity: &Value) -> Result<(), String> {
    let known = properties(kind);
    for (name, value) in entity.as_object().ok_or("no object")?.iter().filter(|(name, _)| !name.starts_with('@')) {
        let property = known.get(name.as_str()).ok_or_else(|| format!("{kind} has no {name}"))?;
        check_value(&property.kind, property.nullable, value).map_err(|reason| format!("{name}: {reason}"))?;
    }
    Ok(())
}

fn properties(kind: &str) -> BTreeMap<&'static str, &'static Property> {
    let Some(entity) = SCHEMA.entities.get(kind) else { return BTreeMap::new() };
    let mut all = entity.base.as_deref().map(properties).unwrap_or_default();
    all.extend(entity.properties.iter().map(|(name, property)| (name.as_str(), property)));
    all
}

fn check_value(kind: &str, nullable: bool, value: &Value) -> Result<(), String> {
    let fits = match (kind, value) {
        (_, Value::Null) => nullable,
        ("Edm.String", Value::String(_)) => true,
        ("Edm.DateTimeOffset", Value::String(text)) => DateTime::parse_from_rfc3339(text).is_ok(),
        (kind, Value::String(member)) => SCHEMA.enums.get(kind).is_some_and(|members| members.contains(member)),
        _ => false,
    };
    if fits { Ok(()) } else { Err(format!("{value} is no {kind}")) }
}

/// A simulator, and a client of it that knows nothing of the daemon's.
struct Bench {
    simulator: Simulator,
    client: reqwest::Client,
    token: String,
}

impl Bench {
    async fn with(options: Options) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let simulator = Simulator::start(Options { throttle: Throttle::Off, ..options }).unwrap();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let secret = std::fs::read_to_string(simulator.client_secret_file()).unwrap();
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", &simulator.client_id().to_string()),
            ("client_secret", &secret),
            ("scope", &format!("{}/.default", simulator.graph_url())),
        ];
        let url = format!("{}/{}/oauth2/v2.0/token", simulator.authority_url(), simulator.tenant_id());
        let answer = client.post(url).form(&form).send().await.unwrap().text().await.unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        Self { token: answer["access_token"].as_str().unwrap().to_owned(), simulator, client }
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let url = format!("{}{path}", self.simulator.graph_url());
        let request = self.client.request(method.parse().unwrap(), url).bearer_auth(&self.token);
        let request = match body {
            "" => request,
            body => request.header("content-type", "application/json").body(body.to_owned()),
        };
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }
}

const CLOUD_PCS: &str = "/v1.0/deviceManagement/virtualEndpoint/cloudPCs";

/// One device of each behaviour, and one that is not enrolled.
fn fleet() -> Vec<Device> {
    let device = |n, behaviour| Device::new(Uuid::from_u128(n).try_into().unwrap(), behaviour);
    vec![
        device(1, Behaviour::Succeeds),
        device(2, Behaviour::FailsLater),
        device(3, Behaviour::NotSupported),
        Device { not_enrolled: true, ..device(4, Behaviour::Succeeds) },
    ]
}

#[tokio::test]
async fn the_simulators_cloud_pcs_have_the_properties_and_the_types_that_microsoft_publishes() {
    for new_ids in [false, true] {
        let bench = Bench::with(Options { fleet: fleet(), new_ids, ..Options::default() }).await;
        let list = async || -> Vec<Value> {
            let body: Value = serde_json::from_str(&bench.ask("GET", CLOUD_PCS, "").await.1).unwrap();
            body["value"].as_array().unwrap().clone()
        };
        let before = list().await;
        let known = properties("graph.cloudPC");
        assert!(known.keys().all(|name| before[0].get(name).is_some()), "{} of {:?}", before[0], known.keys());
        for cloud_pc in &before {
            let path = format!("{CLOUD_PCS}/{}/reprovision", cloud_pc["id"].as_str().unwrap());
            bench.ask("POST", &path, "").await;
        }
        let running = list().await;
        bench.simulator.advance(Duration::from_mins(1));
        for cloud_pc in before.into_iter().chain(running).chain(list().await) {
            assert_eq!(check_entity("graph.cloudPC", &cloud_pc), Ok(()), "{cloud_pc}");
        }
        assert_eq!(check_recorded(&bench.simulator), bench.simulator.traffic().len());
    }
}

#[tokio::test]
async fn the_simulator_takes_the_requests_that_the_schema_has_and_no_others() {
    let bench = Bench::with(Options { fleet: fleet(), ..Options::default() }).await;
    let cloud_pc = bench.simulator.devices()[0].cloud_pc_id.unwrap().to_string();
    let one = format!("{CLOUD_PCS}/{cloud_pc}");
    let reprovision = format!("{one}/reprovision");
    let select = |name: &str| format!("{CLOUD_PCS}?$select=id,{name}");
    let batch = |body: &str| {
        let inner = reprovision.strip_prefix("/v1.0").unwrap();
        format!(
            r#"{{"requests": [{{"id": "1", "method": "POST", "url": "{inner}",
                "headers": {{"Content-Type": "application/json"}}, "body": {body}}}]}}"#
        )
    };
    let bodies = [
        (r"{}", true),
        (r#"{"osVersion": "windows11", "userAccountType": "standardUser"}"#, true),
        (r#"{"osVersion": null}"#, true),
        (r#"{"osVersion": "windows12"}"#, false),
        (r#"{"osversion": "windows11"}"#, false),
        (r#"{"force": true}"#, false),
        (r"[]", false),
    ];
    let mut requests = vec![
        ("GET", CLOUD_PCS.to_owned(), String::new(), true),
        ("GET", one.clone(), String::new(), true),
        ("GET", select("managedDeviceId"), String::new(), true),
        ("GET", select("status"), String::new(), false),
        ("GET", select("manageddeviceid"), String::new(), false),
        (
            "GET",
            format!("{CLOUD_PCS}?$filter=managedDeviceId%20eq%20'{}'&$top=2&$count=true", Uuid::nil()),
            String::new(),
            true,
        ),
        ("GET", format!("{CLOUD_PCS}?$filter=status%20eq%20'provisioned'"), String::new(), false),
        ("GET", format!("{CLOUD_PCS}?$top=many"), String::new(), false),
        ("POST", reprovision.clone(), String::new(), true),
        ("POST", format!("{one}/reprovisioned"), String::new(), false),
        ("POST", "/v1.0/deviceManagement/virtualEndpoint/bulkActions".to_owned(), "{}".to_owned(), false),
        ("POST", "/v1.0/deviceManagement/managedDevices/bulkReprovisionCloudPc".to_owned(), "{}".to_owned(), false),
    ];
    for (body, good) in bodies {
        requests.push(("POST", reprovision.clone(), body.to_owned(), good));
        requests.push(("POST", "/v1.0/$batch".to_owned(), batch(body), good));
    }
    for (method, path, body, good) in requests {
        let by_schema = check_request(method, &path, &body);
        assert_eq!(by_schema.is_ok(), good, "{method} {path} {body}: {by_schema:?}");
        let (status, answer) = bench.ask(method, &path, &body).await;
        let taken = match path.as_str() {
            "/v1.0/$batch" => answer.contains(r#""status":204"#),
            _ => status < 300,
        };
        assert_eq!(taken, good, "{method} {path} {body}: {status} {answer}");
    }
}

#[test]
fn beta_is_not_covered_by_the_schema_and_what_is_no_version_is_refused() {
    let beta = "/beta/deviceManagement/managedDevices/bulkReprovisionCloudPc";
    assert_eq!(check_request("POST", beta, r#"{"managedDeviceIds": []}"#), Ok(false));
    assert!(check_request("GET", "/v2.0/deviceManagement", "").is_err());
}
