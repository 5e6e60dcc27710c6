//! Reading a device's remote actions, by either of Graph's interfaces.

use chrono::{DateTime, Utc};

use super::caller::{Caller, Unread};
use super::wire;
use crate::domain::answer::retry_after;
use crate::domain::id::{CloudPcId, ManagedDeviceId};
use crate::domain::read_back::{ReadBack, Seen};

/// By managed device: of the family of `bulkReprovisionCloudPc`.
/// Source: Microsoft's reference page "managedDevice: getCloudPcRemoteActionResults" (beta).
pub(super) async fn of_managed_device(caller: &Caller, device: ManagedDeviceId) -> ReadBack {
    read(caller, &format!("/beta/deviceManagement/managedDevices/{device}/getCloudPcRemoteActionResults")).await
}

/// By Cloud PC: its successor.
/// Source: Microsoft's reference page "cloudPC: retrieveCloudPcRemoteActionResults" (beta).
pub(super) async fn remote_actions(caller: &Caller, cloud_pc: CloudPcId) -> ReadBack {
    let path = format!("/beta/deviceManagement/virtualEndpoint/cloudPCs/{cloud_pc}/retrieveCloudPcRemoteActionResults");
    read(caller, &path).await
}

/// What cannot be read, as a read-back.
pub(super) fn failed(unread: Unread) -> ReadBack {
    let asks = unread.answer.as_ref().and_then(|answer| {
        retry_after(answer.retry_after.as_deref()?, answer.date.unwrap_or(DateTime::<Utc>::UNIX_EPOCH))
    });
    ReadBack::Failed { reason: unread.reason, retry_after: asks }
}

async fn read(caller: &Caller, path: &str) -> ReadBack {
    let Ok(url) = caller.url(path) else {
        return ReadBack::Failed { reason: "graph_url does not take a path".to_owned(), retry_after: None };
    };
    let answer = match caller.get(url).await {
        Ok(answer) => answer,
        Err(unread) => return failed(unread),
    };
    match answer.whole().map_err(|_| "").and_then(wire::remote_actions) {
        Ok(actions) => ReadBack::Seen(Seen { actions, read_at: answer.date, graph_request_id: answer.request_id }),
        Err(why) => failed(answer.unreadable(why)),
    }
}
