//! The simulator over real HTTP, as a client sees it. What it says is compared with Microsoft's pages, not with itself.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use chrono::DateTime;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use super::faults::{ErrorBody, WrongType};
use super::fleet::PAGE_EXAMPLE;
use super::*;

mod answers;
mod batches;
mod bulk_actions;
mod checks;
mod cloud_pcs;
mod losses;
mod steering;
mod successors;
mod tokens;

const SUCCEEDS: &str = PAGE_EXAMPLE[0].0;
const FAILS: &str = PAGE_EXAMPLE[1].0;
const STRANGER: &str = "11111111-2222-4333-8444-555555555555";
const ACTION: &str = "/beta/deviceManagement/managedDevices/bulkReprovisionCloudPc";
const CLOUD_PCS: &str = "/v1.0/deviceManagement/virtualEndpoint/cloudPCs";
const BULK_ACTIONS: &str = "/beta/deviceManagement/virtualEndpoint/bulkActions";
const CALL_ID: &str = "0191f7a4-0000-7000-8000-00000000c0de";

/// A simulator, a client that trusts it, and a token.
struct Bench {
    simulator: Simulator,
    client: reqwest::Client,
    token: String,
}

impl Bench {
    async fn with(options: Options) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let simulator = Simulator::start(options).unwrap();
        let mut client = reqwest::Client::builder().no_proxy();
        if let Some(ca) = simulator.ca_file() {
            let pem = std::fs::read(ca).unwrap();
            client = client.tls_certs_only([reqwest::Certificate::from_pem(&pem).unwrap()]);
        }
        let mut bench = Self { simulator, client: client.build().unwrap(), token: String::new() };
        bench.token = bench.fresh_token().await;
        bench
    }

    async fn healthy() -> Self {
        Self::with(Options::default()).await
    }

    async fn fresh_token(&self) -> String {
        let answer = self.ask_token(&[]).await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        answer.json()["access_token"].as_str().unwrap().to_owned()
    }

    /// A right request for a token, but for these fields; an empty one is left out.
    async fn ask_token(&self, changed: &[(&str, &str)]) -> Answered {
        let secret = std::fs::read_to_string(self.simulator.client_secret_file()).unwrap();
        let client_id = self.simulator.client_id().to_string();
        let scope = format!("{}/.default", self.simulator.graph_url());
        let mut form = std::collections::BTreeMap::from([
            ("grant_type", "client_credentials"),
            ("client_id", &client_id),
            ("client_secret", &secret),
            ("scope", &scope),
        ]);
        form.extend(changed.iter().copied());
        form.retain(|_, value| !value.is_empty());
        let path = format!("/{}/oauth2/v2.0/token", self.simulator.tenant_id());
        Answered::to(self.anonymous(Method::POST, &path).form(&form)).await.unwrap()
    }

    fn anonymous(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.simulator.graph_url()))
    }

    fn authorised(&self, method: Method, path: &str) -> RequestBuilder {
        self.anonymous(method, path).bearer_auth(&self.token)
    }

    fn action(&self, ids: &[&str]) -> RequestBuilder {
        let body = json!({"managedDeviceIds": ids}).to_string();
        let request = self.authorised(Method::POST, ACTION).header("client-request-id", CALL_ID);
        request.header("content-type", "application/json").body(body)
    }

    async fn reprovision(&self, ids: &[&str]) -> Answered {
        Answered::to(self.action(ids)).await.unwrap()
    }

    /// As a client with bad luck sees it.
    async fn lose(&self, ids: &[&str]) -> reqwest::Error {
        match Answered::to(self.action(ids)).await {
            Ok(answered) => panic!("an answer where none should be: {answered:?}"),
            Err(error) => error,
        }
    }

    async fn read_back(&self, id: &str) -> Answered {
        let path = format!("/beta/deviceManagement/managedDevices/{id}/getCloudPcRemoteActionResults");
        Answered::to(self.authorised(Method::GET, &path)).await.unwrap()
    }

    /// The states of the device's actions.
    async fn states(&self, id: &str) -> Vec<String> {
        let body = self.read_back(id).await.json();
        let actions = body["value"].as_array().unwrap().iter();
        actions.map(|action| action["actionState"].as_str().unwrap().to_owned()).collect()
    }

    async fn get(&self, path: &str) -> Answered {
        Answered::to(self.authorised(Method::GET, path)).await.unwrap()
    }

    async fn post(&self, path: &str, body: &Value) -> Answered {
        let request = self.authorised(Method::POST, path).header("client-request-id", CALL_ID);
        Answered::to(request.header("content-type", "application/json").body(body.to_string())).await.unwrap()
    }

    /// The Cloud PC that the fleet gives to the device.
    fn cloud_pc_of(&self, id: &str) -> String {
        let mut devices = self.simulator.devices().iter();
        devices.find(|device| device.managed_device_id.to_string() == id).unwrap().cloud_pc_id.unwrap().to_string()
    }

    /// The states of the Cloud PC's actions.
    async fn cloud_pc_states(&self, id: &str) -> Vec<String> {
        let path = format!("/beta/deviceManagement/virtualEndpoint/cloudPCs/{id}/retrieveCloudPcRemoteActionResults");
        let body = self.get(&path).await.json();
        let actions = body["value"].as_array().unwrap().iter();
        actions.map(|action| action["actionState"].as_str().unwrap().to_owned()).collect()
    }

    fn fault(&self, effect: impl Into<Fault>) {
        self.simulator.add_fault(effect).unwrap();
    }

    /// Which devices were really reprovisioned, and whether an answer told so.
    fn happened(&self) -> Vec<(String, bool)> {
        let ledger = self.simulator.ledger().into_iter();
        ledger.map(|entry| (entry.managed_device_id.to_string(), entry.answered)).collect()
    }
}

#[derive(Debug)]
struct Answered {
    status: StatusCode,
    headers: reqwest::header::HeaderMap,
    body: String,
}

impl Answered {
    async fn to(request: RequestBuilder) -> reqwest::Result<Self> {
        // Long enough for a loaded machine; a test that reaches it has failed.
        let answer = request.timeout(Duration::from_mins(1)).send().await?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        Ok(Self { status, headers, body: answer.text().await? })
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Status and error code.
    fn refusal(&self) -> (u16, String) {
        (self.status.as_u16(), self.error_code())
    }

    fn error_code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}
