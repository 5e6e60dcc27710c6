//! The daemon from outside: a real process, judged by the simulator's ledger, the database and its output.

mod actions;
mod answers;
mod boundaries;
mod completion;
mod crashes;
mod credentials;
mod file_trouble;
mod journal;
mod kills;
mod log;
mod orders;
mod outages;
mod pooler;
mod queue;
mod reload;
mod systemd;
mod tenants;
mod turns;
mod workers;
