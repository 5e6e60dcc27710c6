//! Seeded histories of the real engine in virtual time: crashes, stops, lost and late answers, slow read-back, outages and
//! steps of the database's clock, one to five workers. After each step the invariants of the protocol are checked; at the
//! end everything must have ended. A failure names its seed: `tests/simulate-histories 1 SEED` shows what happened.

mod database;
mod graph;
mod history;
mod invariants;
mod store;
mod world;

use std::time::Duration;

use history::{Kind, first_breach, repeat, run};
use world::Mutant;

/// What a rate may be ahead of itself.
const TOLERANCE: Duration = Duration::from_millis(50);

/// Histories a test runs, unless `SIMULATION_HISTORIES` says otherwise.
const HISTORIES: u64 = 600;

/// Histories in which a broken protocol must be found out.
const TO_FIND_OUT: u64 = 300;

fn hold(kind: Kind, first: u64) {
    if repeat(kind) {
        return;
    }
    let histories = std::env::var("SIMULATION_HISTORIES").map_or(HISTORIES, |n| n.parse().unwrap());
    if let Some(breach) = first_breach(kind, None, first..first + histories) {
        panic!("{breach}");
    }
}

macro_rules! histories {
    ($($(#[$meta:meta])* $name:ident = $kind:expr, from $first:expr;)*) => {
        $($(#[$meta])* #[test] fn $name() { hold($kind, $first); })*
    };
}

histories! {
    invariants_hold_whatever_fails_1 = Kind::Stormy, from 1_000_000;
    invariants_hold_whatever_fails_2 = Kind::Stormy, from 2_000_000;
    invariants_hold_whatever_fails_3 = Kind::Stormy, from 3_000_000;
    invariants_hold_whatever_fails_4 = Kind::Stormy, from 4_000_000;
    invariants_hold_while_workers_crash_and_stop_all_the_time = Kind::Crashes, from 5_000_000;
    invariants_hold_for_devices_that_are_asked_for_again_and_again = Kind::FewDevices, from 6_000_000;
    invariants_hold_while_the_clock_of_the_database_steps_by_a_day = Kind::ClockSteps, from 7_000_000;
}

fn is_found_out(mutant: Mutant, kind: Kind) {
    let found = first_breach(kind, Some(mutant), 0..TO_FIND_OUT);
    let found = found.unwrap_or_else(|| panic!("{mutant:?} was not found out in {TO_FIND_OUT} histories"));
    println!("{mutant:?}: {found}");
}

#[test]
fn a_protocol_that_resends_after_a_crash_is_found_out() {
    is_found_out(Mutant::ResendsOnCrash, Kind::Crashes);
}

#[test]
fn a_protocol_without_its_last_check_before_sending_is_found_out() {
    is_found_out(Mutant::NoFence, Kind::Crashes);
}

#[test]
fn a_protocol_that_does_not_wait_for_graph_to_show_an_action_is_found_out() {
    is_found_out(Mutant::NoSettlingTime, Kind::Stormy);
}

#[test]
fn a_protocol_that_does_not_bound_its_doubts_is_found_out() {
    is_found_out(Mutant::UnboundedDoubts, Kind::Stormy);
}

#[test]
fn a_seed_gives_the_same_history_each_time() {
    for seed in 0..40 {
        for kind in [Kind::Stormy, Kind::ClockSteps] {
            let (first, second) = (run(kind, None, seed), run(kind, None, seed));
            let differs = first.log.iter().zip(&second.log).find(|(one, other)| one != other);
            assert_eq!(first.digest, second.digest, "seed {seed}: {differs:?}");
        }
    }
}
