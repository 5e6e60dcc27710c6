//! The three interfaces by which Graph reprovisions, by the names that the daemon's configuration gives them.

use serde::{Deserialize, Serialize};

use super::Shared;
use super::answer::{Answer, Call};

/// An interface by which Graph reprovisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Interface {
    /// `POST managedDevices/bulkReprovisionCloudPc`: managed device IDs, and a list for each outcome at once.
    BulkReprovisionCloudPc,
    /// `POST virtualEndpoint/bulkActions`: Cloud PC IDs, and an outcome later.
    CloudPcBulkAction,
    /// `POST virtualEndpoint/cloudPCs/{id}/reprovision`: one Cloud PC, by itself or in a `$batch`.
    CloudPcReprovision,
}

impl Interface {
    /// The path's segment that a tenant without the interface does not know.
    pub(super) fn segment(self) -> &'static str {
        match self {
            Self::BulkReprovisionCloudPc => "bulkReprovisionCloudPc",
            Self::CloudPcBulkAction => "bulkActions",
            Self::CloudPcReprovision => "reprovision",
        }
    }

    /// The refusal of a tenant that was told to be without it.
    pub(super) fn refuse_if_gone(self, sim: &Shared, call: &Call) -> Result<(), Answer> {
        if sim.without.contains(&self) { Err(no_segment(call, self.segment())) } else { Ok(()) }
    }
}

/// What Graph answers for a path that it does not know.
pub(super) fn no_segment(call: &Call, segment: &str) -> Answer {
    Answer::graph_error(call, 400, "BadRequest", &format!("Resource not found for the segment '{segment}'."))
}
