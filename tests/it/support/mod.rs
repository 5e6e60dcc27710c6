//! What tests share.

mod daemon;
mod databases;
mod judge;

pub(crate) use daemon::{BRISK, Daemon, SETTLES, calm};
pub(crate) use databases::{Backend, Scratch, on_both};
pub(crate) use judge::judge;
