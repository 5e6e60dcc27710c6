//! Reading a device's remote actions, by either of Graph's interfaces.

use chrono::{DateTime, Utc};

use super::caller::{Caller, Unread};
use super::cloud_pcs::CloudPcs;
use super::wire;
use crate::domain::answer::retry_after;
use crate::domain::id::{CloudPcId, ManagedDeviceId};
use crate::domain::read_back::{ReadBack, Seen};

/// By managed device: the successor's, where the device's Cloud PC is known, else what is left of the family of
/// `bulkReprovisionCloudPc`.
///
/// Source: Microsoft's reference page "managedDevice: getCloudPcRemoteActionResults" (beta), by which it is deprecated and
/// stopped returning data on 30 September 2024: what it shows has happened, and what it does not show may have.
pub(super) async fn of_managed_device(caller: &Caller, cloud_pcs: &CloudPcs, device: ManagedDeviceId) -> ReadBack {
    match cloud_pcs.prepare(caller).await {
        Ok(()) => {}
        Err(unread) if is_missing(&unread) => {}
        Err(unread) => {
            let reason = format!("the list of Cloud PCs could not be read: {}", unread.reason);
            return failed(Unread { reason, ..unread });
        }
    }
    if let Some(cloud_pc) = cloud_pcs.of(device) {
        match read(caller, &by_cloud_pc(cloud_pc)).await {
            // Where a tenant, or its cloud, has no successor, the old one is what there is.
            Err(unread) if is_missing(&unread) => {}
            other => return seen(other),
        }
    }
    match read(caller, &format!("/beta/deviceManagement/managedDevices/{device}/getCloudPcRemoteActionResults")).await {
        Ok(shown) => ReadBack::Seen(Seen {
            absence_proves_nothing: Some(
                "Microsoft has deprecated the read-back by managed device ID, and no Cloud PC with this ID can be read",
            ),
            ..shown
        }),
        unread => seen(unread),
    }
}

/// Whether Graph answers that there is no such interface, or none for this Cloud PC.
fn is_missing(unread: &Unread) -> bool {
    unread.answer.as_ref().is_some_and(|answer| [400, 404, 405, 410, 501].contains(&answer.status))
}

/// By Cloud PC.
/// Source: Microsoft's reference page "cloudPC: retrieveCloudPcRemoteActionResults" (beta).
pub(super) async fn remote_actions(caller: &Caller, cloud_pc: CloudPcId) -> ReadBack {
    seen(read(caller, &by_cloud_pc(cloud_pc)).await)
}

fn by_cloud_pc(cloud_pc: CloudPcId) -> String {
    format!("/beta/deviceManagement/virtualEndpoint/cloudPCs/{cloud_pc}/retrieveCloudPcRemoteActionResults")
}

/// What cannot be read, as a read-back.
pub(super) fn failed(unread: Unread) -> ReadBack {
    let asks = unread.answer.as_ref().and_then(|answer| {
        retry_after(answer.retry_after.as_deref()?, answer.date.unwrap_or(DateTime::<Utc>::UNIX_EPOCH))
    });
    ReadBack::Failed { reason: unread.reason, retry_after: asks }
}

fn seen(read: Result<Seen, Unread>) -> ReadBack {
    read.map_or_else(failed, ReadBack::Seen)
}

async fn read(caller: &Caller, path: &str) -> Result<Seen, Unread> {
    let url = caller.url(path).map_err(|error| Unread { reason: format!("graph_url: {error}"), answer: None })?;
    let answer = caller.get(url).await?;
    let actions =
        answer.whole().map_err(|_| "").and_then(wire::remote_actions).map_err(|why| answer.unreadable(why))?;
    let (read_at, graph_request_id) = (answer.date, answer.request_id);
    Ok(Seen { actions, read_at, graph_request_id, absence_proves_nothing: None })
}
