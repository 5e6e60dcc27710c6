//! What the daemon decides, as pure functions over plain data: no IO, no clock, no randomness.

pub mod action;
pub mod answer;
pub mod budget;
pub mod completion;
pub mod id;
pub mod lifecycle;
pub mod operator;
pub mod plan;
pub mod printable;
pub mod rate;
pub mod read_back;
pub mod retry;
pub mod span;
