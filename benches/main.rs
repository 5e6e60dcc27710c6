//! How fast, how soon and at what cost: a subcommand for each goal.
//!
//! ```sh
//! tests/with-postgres --durable cargo bench -- limit      # or another of the names below
//! tests/with-postgres --durable cargo bench -- all
//! ```
//!
//! Each drives the release binary as a process, or the real engine and store in this one, on databases that wait for their
//! disk, and measures its yardsticks in turn with it. Machines differ and are shared: what counts are the ratios. One
//! program for all, since linking it takes longer than most of them run.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a measurement looks at the clock, and ends where it cannot go on"
)]

mod cpu;
mod history;
mod instructions;
mod limit;
mod overlap;
mod service;
mod start;
mod support;
mod throughput;

use clap::Parser;

/// Measures reprovisiond beside its yardsticks
#[derive(Parser)]
enum Benchmark {
    /// P1: a large job at the published limit
    Limit(limit::Arguments),
    /// P2: calls that take 200 ms, side by side
    Overlap(overlap::Arguments),
    /// P3: as fast as the database goes
    Throughput(throughput::Arguments),
    /// P4: CPU time a device
    Cpu(cpu::Arguments),
    /// P5, P6: pick-up, and what an idle daemon costs
    Service(service::Arguments),
    /// P7: with years of history
    History(history::Arguments),
    /// P8: start, a large file, memory
    Start(start::Arguments),
    /// Instructions of the pure parts
    Instructions(instructions::Arguments),
    /// One after the other, at their default sizes
    All,
}

#[tokio::main]
async fn main() {
    // Cargo adds an argument of its own.
    match Benchmark::parse_from(std::env::args().filter(|argument| argument != "--bench")) {
        Benchmark::Limit(arguments) => limit::run(arguments).await,
        Benchmark::Overlap(arguments) => overlap::run(arguments).await,
        Benchmark::Throughput(arguments) => throughput::run(arguments).await,
        Benchmark::Cpu(arguments) => cpu::run(arguments).await,
        Benchmark::Service(arguments) => service::run(arguments).await,
        Benchmark::History(arguments) => history::run(arguments).await,
        Benchmark::Start(arguments) => start::run(arguments).await,
        Benchmark::Instructions(arguments) => instructions::run(&arguments),
        Benchmark::All => all().await,
    }
}

async fn all() {
    for name in ["limit", "overlap", "throughput", "cpu", "service", "history", "start", "instructions"] {
        println!("\n{name}");
        let status = tokio::process::Command::new(std::env::current_exe().unwrap()).arg(name).status().await.unwrap();
        assert!(status.success(), "{name} could not be measured, see above");
    }
}
