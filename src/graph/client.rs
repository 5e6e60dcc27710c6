//! One tenant's Graph: the action that is set for it, what must be known before it is called, and the read-back.

use std::fmt::Write as _;
use std::time::Duration;

use async_trait::async_trait;
use sha2::{Digest, Sha256};

use super::caller::{Answer, Caller, Unread, evidence_of};
use super::cloud_pcs::CloudPcs;
use super::credential::TokenKeeper;
use super::http::Proxy;
use super::{
    Composed, Fence, Graph, Outgoing, Reply, TokenError, Unprepared, batch, bulk_action, http, read_back, wire,
};
use crate::clock::BootInstant;
use crate::config;
use crate::domain::action::Action;
use crate::domain::answer::{Body, Evidence, Exchange, HttpAnswer};
use crate::domain::id::{CallId, CloudPcId, ManagedDeviceId};
use crate::domain::read_back::{ReadBack, Subject};

/// One tenant's Graph.
pub struct GraphClient {
    pub(super) caller: Caller,
    action: Action,
    cloud_pcs: CloudPcs,
    call_timeout: Duration,
}

/// A client that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Graph's URL does not take a path.
    #[error("graph_url: {0}")]
    Url(#[from] url::ParseError),
    /// TLS could not be set up, for instance because the system has no root certificates.
    #[error("the HTTPS client could not be set up: {0}")]
    Http(String),
}

impl GraphClient {
    /// A client for `tenant`, which calls the tenant's own action.
    pub fn new(tenant: &config::Tenant, settings: &config::Graph) -> Result<Self, ClientError> {
        let call_timeout = settings.call_timeout;
        let no_client = |error| ClientError::Http(http::explain(&error));
        let http = http::client(call_timeout, Proxy::OfTheSystem).map_err(no_client)?;
        // The endpoint that hands out a managed identity's tokens is on the host itself: no proxy is to see them.
        let proxy = match tenant.credential {
            config::Credential::ManagedIdentity { .. } => Proxy::None,
            _ => Proxy::OfTheSystem,
        };
        let for_tokens = http::client(call_timeout, proxy).map_err(no_client)?;
        let base = tenant.graph_url.as_str().trim_end_matches('/').to_owned();
        let caller = Caller::new(http, base, TokenKeeper::new(for_tokens, tenant));
        caller.url(wire::ACTION_PATH)?;
        Ok(Self { caller, action: tenant.action, cloud_pcs: CloudPcs::new(settings.cloud_pcs_max_age), call_timeout })
    }

    /// The application permissions in the token's `roles` claim; `None` if the token cannot be read.
    pub async fn token_roles(&self) -> Result<Option<Vec<String>>, TokenError> {
        self.caller.credential.roles().await
    }

    fn body(&self, call: CallId, devices: &[ManagedDeviceId], targets: &[(ManagedDeviceId, CloudPcId)]) -> Vec<u8> {
        match self.action {
            Action::BulkReprovisionCloudPc => wire::request_body(devices),
            Action::CloudPcBulkAction => bulk_action::request_body(call, targets),
            Action::CloudPcReprovision => batch::request_body(call, targets),
        }
    }

    /// The call for devices whose Cloud PCs its intent names, where the action takes these.
    async fn post(&self, outgoing: &Outgoing, targets: &[(ManagedDeviceId, CloudPcId)], fence: Fence) -> Reply {
        let began = BootInstant::now();
        let path = match self.action {
            Action::BulkReprovisionCloudPc => wire::ACTION_PATH,
            Action::CloudPcBulkAction => bulk_action::PATH,
            Action::CloudPcReprovision => batch::PATH,
        };
        let body = self.body(outgoing.call, &outgoing.devices, targets);
        let answer = match self.caller.post(path, outgoing.call, body, fence).await {
            Ok(answer) => answer,
            Err(exchange) => {
                if let Exchange::Lost { .. } = exchange {
                    self.forget(outgoing, |_| true);
                }
                return Reply { evidence: evidence_of(&exchange), exchange, renewed_token: false };
            }
        };
        let (body, evidence) = self.read(&answer, targets, self.call_timeout.saturating_sub(began.elapsed())).await;
        let not_done = (300..500).contains(&answer.status) && ![303, 406, 408, 499].contains(&answer.status);
        if !not_done {
            self.forget(outgoing, |device| !refused(&body, device));
        }
        Reply { exchange: Exchange::Answered(answer.http(body)), evidence, renewed_token: answer.renewed_token }
    }

    /// What may have been carried out may have changed which managed device a Cloud PC is. Where Cloud PCs are only read back,
    /// the one that a device had is the one to read.
    fn forget(&self, outgoing: &Outgoing, which: impl Fn(ManagedDeviceId) -> bool) {
        if self.action.takes_cloud_pc_ids() {
            self.cloud_pcs.forget(outgoing.devices.iter().copied().filter(|device| which(*device)));
        }
    }

    async fn read(
        &self,
        answer: &Answer,
        targets: &[(ManagedDeviceId, CloudPcId)],
        within: Duration,
    ) -> (Body, Evidence) {
        let whole = |read: fn(&[u8]) -> Body| {
            // What is not whole is not read: half a list looks like a list.
            (answer.whole().map_or_else(Body::NoBuckets, read), answer.evidence())
        };
        match self.action {
            Action::BulkReprovisionCloudPc => whole(wire::buckets),
            Action::CloudPcReprovision => whole(batch::answers),
            Action::CloudPcBulkAction if (200..300).contains(&answer.status) => {
                bulk_action::follow(&self.caller, answer, targets, within).await
            }
            Action::CloudPcBulkAction => (Body::NoBuckets("no bulk action was made".to_owned()), answer.evidence()),
        }
    }

    /// Looks devices up that have no Cloud PC in the list at hand: nothing is asked of the action.
    async fn look_up(&self, devices: &[ManagedDeviceId]) -> Reply {
        let exchange = match self.cloud_pcs.look_up(&self.caller, devices).await {
            Ok(devices) => Exchange::Answered(HttpAnswer {
                status: 200,
                retry_after: None,
                date: None,
                error: None,
                body: Body::Listed(devices),
            }),
            Err(unread) => unlisted(unread),
        };
        let mut evidence = evidence_of(&exchange);
        if let Exchange::Answered(answer) = &exchange {
            evidence.http_status = Some(answer.status);
            evidence.error_code = answer.error.as_ref().map(|error| error.code.clone());
            evidence.error_message = Some("the list of Cloud PCs was read; nothing was asked of the action".to_owned());
        }
        Reply { exchange, evidence, renewed_token: false }
    }
}

/// A list that could not be read, as an exchange: what Graph says of the tenant holds for calls too; all else leaves the devices as
/// they are, since nothing was sent.
fn unlisted(unread: Unread) -> Exchange {
    let reason = format!("the list of Cloud PCs could not be read: {}", unread.reason);
    match unread.answer {
        Some(answer) if answer.status < 500 || answer.status == 503 && answer.error.is_some() => {
            Exchange::Answered(*answer)
        }
        _ => Exchange::NotSent { reason },
    }
}

#[async_trait]
impl Graph for GraphClient {
    fn ready(&self) -> bool {
        self.caller.credential.at_hand().is_some() && (!self.action.takes_cloud_pc_ids() || self.cloud_pcs.at_hand())
    }

    fn token_good_for(&self) -> Option<Duration> {
        self.caller.credential.good_for()
    }

    async fn prepare(&self) -> Result<(), Unprepared> {
        self.caller.credential.token().await?;
        if self.action.takes_cloud_pc_ids() {
            self.cloud_pcs.prepare(&self.caller).await.map_err(|unread| Unprepared::CloudPcs(unlisted(unread)))?;
        }
        Ok(())
    }

    fn has_target(&self, device: ManagedDeviceId) -> bool {
        !self.action.takes_cloud_pc_ids() || self.cloud_pcs.of(device).is_some()
    }

    fn compose(&self, call: CallId, devices: &[ManagedDeviceId]) -> Composed {
        let cloud_pcs: Option<Vec<Option<CloudPcId>>> =
            self.action.takes_cloud_pc_ids().then(|| devices.iter().map(|device| self.cloud_pcs.of(*device)).collect());
        let targets = targets(devices, cloud_pcs.as_deref());
        let digest = Sha256::digest(self.body(call, devices, &targets));
        let digest = digest.iter().fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        });
        Composed { digest, cloud_pcs }
    }

    async fn reprovision(&self, outgoing: &Outgoing, fence: Fence) -> Reply {
        let targets = targets(&outgoing.devices, outgoing.cloud_pcs.as_deref());
        if self.action.takes_cloud_pc_ids() && targets.len() < outgoing.devices.len() {
            self.look_up(&outgoing.devices).await
        } else {
            self.post(outgoing, &targets, fence).await
        }
    }

    async fn read_back(&self, subject: &Subject) -> ReadBack {
        match (subject.action, subject.cloud_pc) {
            (Action::CloudPcBulkAction, Some(cloud_pc)) => bulk_action::look_up(&self.caller, subject, cloud_pc).await,
            _ => self.remote_actions(subject).await,
        }
    }

    async fn remote_actions(&self, subject: &Subject) -> ReadBack {
        match (subject.action.takes_cloud_pc_ids(), subject.cloud_pc) {
            (false, _) => read_back::of_managed_device(&self.caller, &self.cloud_pcs, subject.device).await,
            (true, Some(cloud_pc)) => read_back::remote_actions(&self.caller, cloud_pc).await,
            (true, None) => {
                let reason = "the call named no Cloud PC for this device".to_owned();
                ReadBack::Failed { reason, retry_after: None }
            }
        }
    }
}

/// Whether a `$batch` answers that it did not carry out this device's request.
fn refused(body: &Body, device: ManagedDeviceId) -> bool {
    let Body::Batch(answers) = body else { return false };
    let mut of_device = answers.iter().filter(|(id, _)| id.parse() == Ok(device)).peekable();
    of_device.peek().is_some() && of_device.all(|(_, answer)| [401, 403, 429].contains(&answer.status))
}

fn targets(devices: &[ManagedDeviceId], cloud_pcs: Option<&[Option<CloudPcId>]>) -> Vec<(ManagedDeviceId, CloudPcId)> {
    let cloud_pcs = cloud_pcs.unwrap_or_default();
    devices.iter().zip(cloud_pcs).filter_map(|(device, cloud_pc)| Some((*device, (*cloud_pc)?))).collect()
}
