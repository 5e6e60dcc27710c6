//! The daemon from outside: a real process, judged by the simulator's ledger, the database and its output.

mod answers;
mod crashes;
mod orders;
mod queue;
mod tenants;
