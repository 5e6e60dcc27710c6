//! What tests share.

mod databases;

pub(crate) use databases::{Backend, Scratch, on_both};
