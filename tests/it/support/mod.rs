//! What tests share.

mod daemon;
mod databases;
mod server;

pub(crate) use daemon::{BRISK, Daemon, calm};
pub(crate) use databases::{Backend, Scratch, on_both};
pub(crate) use server::{Bouncer, Network, OwnServer};
