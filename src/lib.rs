//! `reprovisiond` reprovisions Windows 365 Cloud PCs from a database queue: at most one call per device for one
//! request is ever in doubt, a doubt is never resolved by guessing, and nothing that was asked for is lost.
//!
//! # Map of the code
//! Imports go to lower layers only; `tests/it/layers.rs` holds it.
//!
//! | layer | module | what it is, and what it knows nothing of |
//! |---|---|---|
//! | 0 | [`domain`] | pure: identifiers, states, what an answer means, retry verdicts, the plan of a pass. Knows no IO, clock or randomness |
//! | 1 | [`config`] | a file, the environment and flags become one checked `Config`; a secret is only ever a file |
//! | 1 | [`clock`], [`chance`] | a monotonic clock that counts suspended time, and jitter: both held by tests |
//! | 1 | [`failpoint`] | boundaries at which tests end the process; nothing in any other build |
//! | 1 | [`tabular`] | rows as CSV that no spreadsheet runs |
//! | 2 | [`metrics`] | what the process counts of its own work. Knows nothing of who asks |
//! | 3 | [`store`] | the database: one trait, each verb exactly one transaction, SQLite and Postgres side by side |
//! | 3 | [`graph`] | one HTTP call to Microsoft Graph, no hidden retry; tokens |
//! | 4 | [`engine`] | gather, plan, commit the intent, call, commit the answer. Knows the traits, neither sqlx nor reqwest |
//! | 4 | [`ops`] | health, readiness, metrics and the page over HTTP, read only. Knows nothing of the engine: it reads [`metrics`] and asks the store |
//! | 4 | [`simulator`] | a simulated Graph with faults and a ledger. Shares no code with [`graph`], so that a mistake cannot hide in both |
//! | 5 | [`lifecycle`] | signals, and what systemd is told: ready, reloading, stopping, alive |
//! | 5 | [`telemetry`], [`cli`] | logs, and one file a command |

pub mod chance;
pub mod cli;
pub mod clock;
pub mod config;
pub mod domain;
pub mod engine;
pub mod failpoint;
pub mod graph;
pub mod lifecycle;
pub mod metrics;
pub mod ops;
pub mod simulator;
pub mod store;
pub mod tabular;
pub mod telemetry;
