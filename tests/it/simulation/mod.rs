//! Seeded histories of the real engine in virtual time: crashes, stops, lost and late answers, slow read-back, outages and
//! steps of the database's clock, one to five workers. After each step the invariants of the protocol are checked; at the
//! end everything must have ended, and truly so: what is successful was carried out, what is not was not. A failure names its seed: `tests/simulate-histories 1 SEED KIND` shows what happened.

mod database;
mod graph;
mod history;
mod invariants;
mod store;
mod world;

use std::time::Duration;

use history::{Kind, first_breach, repeat, run, times_out};
use world::Mutant;

/// What a rate may be ahead of itself.
const TOLERANCE: Duration = Duration::from_millis(50);

/// Histories of one test, unless `SIMULATION_HISTORIES` says otherwise. The tests of a kind share its seeds out.
const HISTORIES: u64 = 300;

/// Histories in which a broken protocol must be found out.
const TO_FIND_OUT: u64 = 300;

fn hold(kind: Kind, part: u64) {
    if repeat(kind, part) {
        return;
    }
    let histories = std::env::var("SIMULATION_HISTORIES").map_or(HISTORIES, |n| n.parse().unwrap());
    let first = kind.first_seed() + part * histories;
    if let Some(breach) = first_breach(kind, None, first..first + histories) {
        panic!("{breach}");
    }
}

macro_rules! invariants_hold {
    ($($kind:ident: $($name:ident = $part:expr),+;)*) => {
        $($(#[test] fn $name() { hold(Kind::$kind, $part); })+)*
    };
}

invariants_hold! {
    Stormy: invariants_hold_whatever_fails_1 = 0, invariants_hold_whatever_fails_2 = 1,
        invariants_hold_whatever_fails_3 = 2, invariants_hold_whatever_fails_4 = 3,
        invariants_hold_whatever_fails_5 = 4, invariants_hold_whatever_fails_6 = 5;
    Crashes: invariants_hold_while_workers_crash_and_stop_all_the_time_1 = 0,
        invariants_hold_while_workers_crash_and_stop_all_the_time_2 = 1,
        invariants_hold_while_workers_crash_and_stop_all_the_time_3 = 2;
    FewDevices: invariants_hold_for_devices_that_are_asked_for_again_and_again_1 = 0,
        invariants_hold_for_devices_that_are_asked_for_again_and_again_2 = 1;
    ClockSteps: invariants_hold_while_the_database_clock_steps_by_a_day_1 = 0,
        invariants_hold_while_the_database_clock_steps_by_a_day_2 = 1,
        invariants_hold_while_the_database_clock_steps_by_a_day_3 = 2;
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

#[test]
fn ten_minutes_of_time_outs_over_ten_thousand_requests_leave_no_more_in_doubt_than_the_limit_and_those_in_flight() {
    for (seed, read_back_works) in [(1, false), (2, true), (3, false), (4, true)] {
        let (most, allowed, sent) = times_out(seed, read_back_works);
        println!("seed {seed}: {sent} calls, at most {most} in doubt of {allowed} allowed");
        assert!(most > 0 && most <= allowed, "seed {seed}: {most} calls in doubt of {allowed}, {sent} sent");
    }
}
