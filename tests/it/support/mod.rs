//! What tests share.

mod daemon;
mod databases;

pub(crate) use daemon::{BRISK, Daemon, calm};
pub(crate) use databases::{Backend, Scratch, on_both};
