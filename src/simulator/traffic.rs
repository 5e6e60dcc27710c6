//! What clients wrote to Graph, so that it can be held against Microsoft's published schema.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// One request to Graph as it was written, tokens left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GraphRequest {
    /// `GET`, `POST`, ….
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The body; empty if there was none, or if it was no text.
    pub body: String,
}

/// A simulator that runs for days must not keep all of them.
const KEPT: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct Traffic(VecDeque<GraphRequest>);

impl Traffic {
    pub(super) fn keep(&mut self, request: GraphRequest) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(request);
    }

    pub(super) fn latest(&self) -> Vec<GraphRequest> {
        self.0.iter().cloned().collect()
    }
}
