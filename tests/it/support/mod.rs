//! What tests share.

mod daemon;
mod databases;
mod judge;
mod server;

pub(crate) use daemon::{BRISK, Daemon, SETTLES, calm};
pub(crate) use databases::{Backend, Role, Scratch, on_both};
pub(crate) use judge::{judge, nothing_left_late};
pub(crate) use server::{Bouncer, Network, OwnServer};
