//! Every integration test, in one binary: it links once, and `tests/run` gives it its databases.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test's helper panics as the test itself would, and a test may look at the clock to measure"
)]

#[cfg(not(feature = "failpoints"))]
compile_error!("these tests end the daemon at its failpoints: run them with tests/run, or add --features failpoints");

mod cli;
mod contract;
mod daemon;
mod deploy;
mod docs;
mod fault_matrix;
mod layers;
mod ops;
mod roles;
mod scratch;
mod simulation;
mod store;
mod support;
