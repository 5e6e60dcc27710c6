//! Which Cloud PC a managed device is: Graph's list of them, read page by page and kept for a while.
//!
//! Source: the reference page "List cloudPCs" (v1.0): `managedDeviceId` can be null, pages go on at `@odata.nextLink`.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use url::Url;
use uuid::Uuid;

use super::caller::{Caller, Unread};
use crate::clock::BootInstant;
use crate::domain::answer::DeviceAnswer;
use crate::domain::id::{CloudPcId, ManagedDeviceId};
use crate::domain::lifecycle::Bucket;

const PATH: &str = "/v1.0/deviceManagement/virtualEndpoint/cloudPCs?$select=id,managedDeviceId";

/// Pages that are followed at most: a list that never ends is none. At Graph's smallest page this is a million Cloud PCs.
const MAX_PAGES: usize = 10_000;

/// Cloud PCs of one managed device that an error names.
const NAMED: usize = 5;

/// A tenant's Cloud PCs by managed device.
pub(super) struct CloudPcs {
    max_age: Duration,
    list: Mutex<Option<List>>,
    /// Devices that a list which began before then says nothing about.
    forgotten: Mutex<HashMap<ManagedDeviceId, BootInstant>>,
    /// One reading at a time; and how the last one failed, if it did.
    reading: tokio::sync::Mutex<Option<(BootInstant, Unread)>>,
}

struct List {
    cloud_pcs: HashMap<ManagedDeviceId, Vec<CloudPcId>>,
    /// All that Graph listed.
    length: usize,
    /// Before its first page was asked for.
    began: BootInstant,
    /// By Graph's clock.
    read_at: Option<DateTime<Utc>>,
}

impl CloudPcs {
    pub(super) fn new(max_age: Duration) -> Self {
        Self { max_age, list: Mutex::default(), forgotten: Mutex::default(), reading: tokio::sync::Mutex::default() }
    }

    fn list(&self) -> MutexGuard<'_, Option<List>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the list is at hand and young enough.
    pub(super) fn at_hand(&self) -> bool {
        self.list().as_ref().is_some_and(|list| list.began.elapsed() < self.max_age)
    }

    /// The one Cloud PC of a device, as far as the list knows.
    pub(super) fn of(&self, device: ManagedDeviceId) -> Option<CloudPcId> {
        match self.list().as_ref()?.cloud_pcs.get(&device)?.as_slice() {
            [one] => Some(*one),
            _ => None,
        }
    }

    /// These have been, or may have been, reprovisioned: their Cloud PCs may have other managed devices now. Whoever asks for
    /// one of them again is told by a list that was read after it.
    pub(super) fn forget(&self, devices: impl Iterator<Item = ManagedDeviceId>) {
        let now = BootInstant::now();
        let (mut list, mut forgotten) = (self.list(), self.forgotten());
        for device in devices {
            if let Some(list) = list.as_mut() {
                list.cloud_pcs.remove(&device);
            }
            forgotten.insert(device, now);
        }
    }

    fn forgotten(&self) -> MutexGuard<'_, HashMap<ManagedDeviceId, BootInstant>> {
        self.forgotten.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a list in force. What was sent while it was being read is not learnt from it.
    fn install(&self, mut list: List) {
        let (mut in_force, mut forgotten) = (self.list(), self.forgotten());
        forgotten.retain(|device, at| {
            let newer = *at >= list.began;
            if newer {
                list.cloud_pcs.remove(device);
            }
            newer
        });
        *in_force = Some(list);
    }

    /// Reads the list, unless one is at hand that is young enough.
    pub(super) async fn prepare(&self, caller: &Caller) -> Result<(), Unread> {
        let asked_at = BootInstant::now();
        let mut last_failure = self.reading.lock().await;
        if self.at_hand() { Ok(()) } else { self.read_once(caller, asked_at, &mut last_failure).await }
    }

    /// Reads it, unless a reading that began since has failed already: where Graph is away, those who ask together wait for one
    /// time-out and not for one each.
    async fn read_once(
        &self,
        caller: &Caller,
        asked_at: BootInstant,
        last_failure: &mut Option<(BootInstant, Unread)>,
    ) -> Result<(), Unread> {
        if let Some((_, unread)) = last_failure.as_ref().filter(|(began, _)| *began >= asked_at) {
            return Err(unread.clone());
        }
        let began = BootInstant::now();
        let read = self.read(caller).await;
        *last_failure = read.as_ref().err().map(|unread| (began, unread.clone()));
        read
    }

    /// What Graph lists for each of these now: read after this was asked, so that whoever is missing has no Cloud PC.
    pub(super) async fn look_up(
        &self,
        caller: &Caller,
        devices: &[ManagedDeviceId],
    ) -> Result<Vec<DeviceAnswer>, Unread> {
        let asked_at = BootInstant::now();
        let mut last_failure = self.reading.lock().await;
        // While this waited, another may have read it.
        if self.list().as_ref().is_none_or(|list| list.began < asked_at) {
            self.read_once(caller, asked_at, &mut last_failure).await?;
        }
        let list = self.list();
        Ok(devices.iter().map(|device| list.as_ref().map_or_else(unlisted, |list| list.says_of(*device))).collect())
    }

    async fn read(&self, caller: &Caller) -> Result<(), Unread> {
        let began = BootInstant::now();
        let mut list = List { cloud_pcs: HashMap::new(), length: 0, began, read_at: None };
        let mut next = Some(caller.url(PATH).map_err(|error| broken(format!("graph_url: {error}")))?);
        let mut pages = 0;
        while let Some(url) = next {
            pages += 1;
            if pages > MAX_PAGES {
                return Err(broken(format!("the list of Cloud PCs does not end after {MAX_PAGES} pages")));
            }
            let answer = caller.get(url.clone()).await?;
            list.read_at = list.read_at.or(answer.date);
            let bytes = answer.whole().map_err(broken)?;
            let page = page(bytes).ok_or_else(|| answer.unreadable("the body is no list of Cloud PCs"))?;
            for (cloud_pc, device) in page.cloud_pcs {
                list.length += 1;
                if let Some(device) = device {
                    let found = list.cloud_pcs.entry(device).or_default();
                    if !found.contains(&cloud_pc) {
                        found.push(cloud_pc);
                    }
                }
            }
            next = page.next.map(|next| same_origin(&next, &url)).transpose()?;
        }
        self.install(list);
        Ok(())
    }
}

fn unlisted() -> DeviceAnswer {
    DeviceAnswer::NotCarriedOut("looked_up")
}

impl List {
    fn says_of(&self, device: ManagedDeviceId) -> DeviceAnswer {
        let read = self.read_at.map(|at| format!(" at {}", at.format("%Y-%m-%dT%H:%M:%SZ"))).unwrap_or_default();
        match self.cloud_pcs.get(&device).map_or(&[][..], Vec::as_slice) {
            [] => {
                let detail = format!(
                    "none of the tenant's {} Cloud PCs has this managed device ID (listed{read} by Graph's clock)",
                    self.length
                );
                DeviceAnswer::Bucket(Bucket::NotFound, Some(detail))
            }
            // It is known now, and goes with the next call.
            [_] => unlisted(),
            several => {
                let named: Vec<String> = several.iter().take(NAMED).map(ToString::to_string).collect();
                let more = if several.len() > NAMED { ", …" } else { "" };
                DeviceAnswer::Refused(format!(
                    "{} Cloud PCs have this managed device ID ({}{more}): which of them is meant cannot be told, so none is reprovisioned",
                    several.len(),
                    named.join(", ")
                ))
            }
        }
    }
}

fn broken(reason: String) -> Unread {
    Unread { reason, answer: None }
}

/// The token goes to no other host than Graph's, whatever a page says.
fn same_origin(next: &str, page: &Url) -> Result<Url, Unread> {
    match Url::parse(next) {
        Ok(url) if url.origin() == page.origin() => Ok(url),
        _ => Err(broken("the list of Cloud PCs goes on at another host, which is not asked".to_owned())),
    }
}

struct Page {
    cloud_pcs: Vec<(CloudPcId, Option<ManagedDeviceId>)>,
    next: Option<String>,
}

/// One page; `None` if it is not the whole of one. A Cloud PC whose ID cannot be read makes the list one to which nothing can
/// be trusted; one without a managed device is just that.
fn page(body: &[u8]) -> Option<Page> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let cloud_pc = |entry: &Value| {
        let id = Uuid::try_parse(entry.get("id")?.as_str()?).ok()?;
        let device = match entry.get("managedDeviceId") {
            None | Some(Value::Null) => None,
            // Empty stands for none too; what is no GUID is no managed device that anybody could ask for.
            Some(Value::String(text)) => text.parse().ok(),
            Some(_) => return None,
        };
        Some((CloudPcId(id), device))
    };
    let cloud_pcs = body.get("value")?.as_array()?.iter().map(cloud_pc).collect::<Option<_>>()?;
    let next = match body.get("@odata.nextLink") {
        None | Some(Value::Null) => None,
        Some(next) => Some(next.as_str()?.to_owned()),
    };
    Some(Page { cloud_pcs, next })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_whole_or_not_at_all() {
        let read = page(
            br#"{"value":[{"id":"11111111-de93-41dc-89ec-33d84bb662a0","managedDeviceId":"30D0E128-de93-41dc-89ec-33d84bb662a0"},
                {"id":"22222222-de93-41dc-89ec-33d84bb662a0","managedDeviceId":null},{"id":"33333333-de93-41dc-89ec-33d84bb662a0"}],
                "@odata.nextLink":"https://graph.microsoft.com/v1.0/x"}"#,
        )
        .unwrap();
        let devices: Vec<bool> = read.cloud_pcs.iter().map(|(_, device)| device.is_some()).collect();
        assert_eq!((devices.as_slice(), read.next.is_some()), (&[true, false, false][..], true));
        for odd in [
            "",
            "{}",
            r#"{"value":{}}"#,
            r#"{"value":[{}]}"#,
            r#"{"value":[{"id":"x"}]}"#,
            r#"{"value":[7]}"#,
            r#"{"value":[],"@odata.nextLink":7}"#,
        ] {
            assert!(page(odd.as_bytes()).is_none(), "{odd}");
        }
    }

    #[test]
    fn what_was_sent_while_a_list_was_being_read_is_not_learnt_from_it() {
        let [sent, other] = [1, 2].map(|n| ManagedDeviceId::try_from(Uuid::from_u128(n)).unwrap());
        let list = |began| List {
            cloud_pcs: [sent, other].map(|device| (device, vec![CloudPcId(device.as_uuid())])).into(),
            length: 2,
            began,
            read_at: None,
        };
        let known = CloudPcs::new(Duration::from_mins(1));
        let before = BootInstant::now();
        known.install(list(before));
        assert!(known.of(sent).is_some());
        known.forget([sent].into_iter());
        assert_eq!(known.of(sent), None);
        known.install(list(before));
        assert_eq!((known.of(sent), known.of(other).is_some()), (None, true));
        known.install(list(BootInstant::now().plus(Duration::from_secs(1))));
        assert!(known.of(sent).is_some(), "a list that began afterwards tells");
    }

    #[test]
    fn a_page_elsewhere_is_not_asked_for() {
        let here = Url::parse("https://graph.microsoft.com/v1.0/x").unwrap();
        assert!(same_origin("https://graph.microsoft.com/v1.0/y?$skiptoken=1", &here).is_ok());
        for elsewhere in ["https://evil.example/v1.0/y", "http://graph.microsoft.com/v1.0/y", "/v1.0/y", ""] {
            assert!(same_origin(elsewhere, &here).is_err(), "{elsewhere}");
        }
    }
}
