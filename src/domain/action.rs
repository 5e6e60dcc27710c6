//! Graph's interfaces that reprovision a Cloud PC, and what each asks of the one who calls it.
//!
//! Source: Microsoft's reference pages of the three, and msgraph-metadata v1.0.

use super::lifecycle::words;

words! {
    /// `graph_calls.action` and the setting `action`.
    Action {
        /// `POST /beta/deviceManagement/managedDevices/bulkReprovisionCloudPc`: managed device IDs, a bucket for each at
        /// once. Deprecated.
        BulkReprovisionCloudPc = "bulk-reprovision-cloud-pc",
        /// `POST /beta/deviceManagement/virtualEndpoint/bulkActions` with a `cloudPcBulkReprovision`: Cloud PC IDs,
        /// accepted as a whole and carried out afterwards.
        CloudPcBulkAction = "cloud-pc-bulk-action",
        /// `POST /v1.0/deviceManagement/virtualEndpoint/cloudPCs/{id}/reprovision`, up to twenty in one `/v1.0/$batch`.
        CloudPcReprovision = "cloud-pc-reprovision",
    }
}

/// Requests in one `$batch` at most. Source: Microsoft's page on JSON batching.
const BATCH_REQUESTS_MAX: usize = 20;

impl Action {
    /// Whether it takes Cloud PC IDs, so that the devices' Cloud PCs must be known before it is called.
    pub fn takes_cloud_pc_ids(self) -> bool {
        !matches!(self, Self::BulkReprovisionCloudPc)
    }

    /// Devices that Graph takes in one call, where it says so.
    pub fn max_devices(self) -> Option<usize> {
        matches!(self, Self::CloudPcReprovision).then_some(BATCH_REQUESTS_MAX)
    }

    /// What a call of so many devices counts for in Graph's limits: each request of a `$batch` counts by itself.
    pub fn requests(self, devices: usize) -> usize {
        if matches!(self, Self::CloudPcReprovision) { devices } else { 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_counts_for_each_of_its_requests_and_the_others_for_one() {
        assert_eq!(Action::ALL.iter().map(|action| action.requests(20)).collect::<Vec<_>>(), [1, 1, 20]);
        assert_eq!(Action::CloudPcReprovision.max_devices(), Some(20));
    }
}
