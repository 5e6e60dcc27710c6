//! The real engine and the real store in this process, with a Graph that answers at once: what the database and the engine
//! can do when neither Graph nor HTTP is in the way. Only Graph is a stand-in, as an empty handler is for other queues.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use reprovisiond::config::{self, Sources};
use reprovisiond::domain::answer::{Body, BucketLists, Evidence, Exchange, HttpAnswer};
use reprovisiond::domain::id::{CallId, ManagedDeviceId, WorkerId};
use reprovisiond::domain::read_back::{ReadBack, Subject};
use reprovisiond::engine::{Engine, Served, Settings, Surroundings};
use reprovisiond::graph::{Composed, Fence, Graph, Outgoing, Reply, Unprepared};
use reprovisiond::store;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::client::Client;

struct Prompt;

fn quoted(devices: &[ManagedDeviceId]) -> String {
    devices.iter().map(|device| format!("\"{device}\"")).collect::<Vec<_>>().join(",")
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(64), |text, byte| text + &format!("{byte:02x}"))
}

#[async_trait]
impl Graph for Prompt {
    fn ready(&self) -> bool {
        true
    }

    async fn prepare(&self) -> Result<(), Unprepared> {
        Ok(())
    }

    fn has_target(&self, _: ManagedDeviceId) -> bool {
        true
    }

    fn compose(&self, _: CallId, devices: &[ManagedDeviceId]) -> Composed {
        Composed { digest: hexadecimal(&Sha256::digest(quoted(devices))), cloud_pcs: None }
    }

    async fn reprovision(&self, outgoing: &Outgoing, fence: Fence) -> Reply {
        if let Err(reason) = fence() {
            return Reply {
                exchange: Exchange::NotSent { reason },
                evidence: Evidence::default(),
                renewed_token: false,
            };
        }
        let successful = outgoing.devices.iter().map(ToString::to_string).collect();
        let body = Body::Buckets(BucketLists { successful, ..BucketLists::default() });
        let evidence = Evidence {
            http_status: Some(200),
            graph_request_id: Some(outgoing.call.to_string()),
            response_body: Some(format!("{{\"successfulDeviceIds\":[{}]}}", quoted(&outgoing.devices))),
            ..Evidence::default()
        };
        let answer = HttpAnswer { status: 200, retry_after: None, date: None, error: None, body };
        Reply { exchange: Exchange::Answered(answer), evidence, renewed_token: false }
    }

    async fn read_back(&self, _: &Subject) -> ReadBack {
        ReadBack::Failed { reason: "there is no doubt here".to_owned(), retry_after: None }
    }

    async fn remote_actions(&self, subject: &Subject) -> ReadBack {
        self.read_back(subject).await
    }
}

/// Runs an engine on the configured database until `done` rows or more have a final result beyond those there were, and
/// says how many seconds that took.
pub async fn drain(config: &Path, client: &mut Client, done: usize) -> f64 {
    let sources = Sources { file: Some(config.to_owned()), ..Sources::default() };
    let config = config::load(&sources).unwrap_or_else(|mistakes| panic!("{mistakes}")).config;
    let store = store::open(&config.database.url, false, config.database.patience).await.unwrap();
    let served = config.tenants.iter().map(|(name, tenant)| Served {
        name: name.clone(),
        graph: Arc::new(Prompt),
        action: tenant.action,
        limits: tenant.limits.clone(),
    });
    let worker = WorkerId::fresh();
    let engine =
        Engine::new(Arc::clone(&store), served.collect(), Settings::from(&config), worker, Surroundings::default());
    engine.start().await.unwrap();
    let target = last_result(client).await + i64::try_from(done).unwrap();
    let stop = CancellationToken::new();
    let started = Instant::now();
    let watch = async {
        // The last id is the end of an index: asking costs nothing. Ids have no gaps while nothing is rolled back.
        while last_result(client).await < target {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let took = started.elapsed();
        stop.cancel();
        took
    };
    let (ended, took) = tokio::join!(engine.run(stop.clone()), watch);
    ended.unwrap();
    store.close().await;
    took.as_secs_f64()
}

async fn last_result(client: &mut Client) -> i64 {
    client.number("SELECT coalesce((SELECT id FROM device_results ORDER BY id DESC LIMIT 1), 0)").await
}
