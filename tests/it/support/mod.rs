//! What tests share.

mod daemon;
mod databases;
mod judge;
mod roles;
mod server;
mod turn;

pub(crate) use daemon::{BRISK, Daemon, SETTLES, calm};
pub(crate) use databases::{Backend, Role, Scratch, on_both};
pub(crate) use judge::{judge, nothing_left_late};
pub(crate) use roles::Roles;
pub(crate) use server::{Bouncer, Network, OwnServer};
pub(crate) use turn::{claim, record};
