//! What was measured and what it comes to, for people and for programs.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::json;

use super::verdict::{Configured, LATENCY, Limit, Verdict};
use super::work::Run;
use crate::cli::render::Columns;
use crate::cli::{Exit, Failure};
use crate::config::DatabaseUrl;

/// All that is said.
pub(super) struct Report<'a> {
    pub(super) database: &'a DatabaseUrl,
    /// The setting by which the server does not wait for its disk.
    pub(super) not_durable: Option<&'a str>,
    pub(super) configured: &'a Configured,
    pub(super) run: &'a Run,
    pub(super) verdict: &'a Verdict,
}

/// Numbers with their units in their names.
#[derive(Serialize)]
struct Document {
    database: String,
    durable: bool,
    devices: u64,
    seconds: f64,
    devices_per_call: usize,
    calls_in_flight: usize,
    commit_ms: f64,
    read_ms: f64,
    cpu_us_per_device: f64,
    cores: usize,
    api_devices_per_second: f64,
    calls_in_flight_devices_per_second: f64,
    database_devices_per_second: f64,
    cpu_devices_per_second: f64,
    limited_by: Limit,
    set: serde_json::Value,
    notes: Vec<String>,
}

impl Report<'_> {
    pub(super) fn json(&self) -> Result<String, Failure> {
        let Run { devices, seconds, measured } = self.run;
        let rate = |limit| rounded(self.verdict.rate(limit));
        let document = Document {
            database: self.database.to_string(),
            durable: self.not_durable.is_none(),
            devices: *devices,
            seconds: rounded(*seconds),
            devices_per_call: self.configured.devices_per_call(),
            calls_in_flight: self.configured.max_calls_in_flight,
            commit_ms: rounded(measured.commit.as_secs_f64() * 1e3),
            read_ms: rounded(measured.read.as_secs_f64() * 1e3),
            cpu_us_per_device: rounded(measured.cpu_per_device.as_secs_f64() * 1e6),
            cores: measured.cores,
            api_devices_per_second: rate(Limit::Api),
            calls_in_flight_devices_per_second: rate(Limit::CallsInFlight),
            database_devices_per_second: rate(Limit::Database),
            cpu_devices_per_second: rate(Limit::Cpu),
            limited_by: self.verdict.limit,
            set: self.verdict.set.as_ref().map_or(json!({}), |set| json!({ set.key: set.value })),
            notes: self.notes(),
        };
        let text = serde_json::to_string_pretty(&document).map_err(|error| Failure::new(Exit::Failure, error))?;
        Ok(text + "\n")
    }

    pub(super) fn text(&self) -> String {
        let Run { devices, seconds, measured } = self.run;
        let Configured { tenants, max_calls_in_flight, .. } = self.configured;
        let each = self.configured.devices_per_call();
        let milliseconds = |time: std::time::Duration| figure(time.as_secs_f64() * 1e3);
        let api = match &tenants[..] {
            [(_, rate)] => format!("limits: {} requests in {:?}, {each} devices a call", rate.calls, rate.period),
            many => format!("limits of {} tenants together", many.len()),
        };
        let from = [
            api,
            format!("worker.max_calls_in_flight = {max_calls_in_flight}, if a call takes {LATENCY:?}"),
            format!(
                "{} devices in {} s, {each} a call; a commit takes {} ms, with nothing to write {} ms",
                figure(number(*devices)),
                figure(*seconds),
                milliseconds(measured.commit),
                milliseconds(measured.read)
            ),
            format!(
                "{} µs a device in this process, {} cores",
                figure(measured.cpu_per_device.as_secs_f64() * 1e6),
                measured.cores
            ),
        ];
        let mut table = Columns::new(&["limit", "devices/s", "from"]);
        table.numbers([1]);
        for ((limit, rate), from) in self.verdict.rates.iter().zip(from) {
            table.row([limit.name().trim_start_matches("the ").to_owned(), figure(*rate), from]);
        }
        let mut text = format!("{}\n\n{}\n{}\n", self.database, table.text(), self.sentence());
        match &self.verdict.set {
            // Writing to a String cannot fail.
            Some(set) => drop(writeln!(text, "Set {} = {}: {}.", set.key, set.value, set.why)),
            None => text.push_str("Nothing need be set.\n"),
        }
        for note in self.notes() {
            text.extend([&note, "\n"]);
        }
        text
    }

    /// What limits, and how far the others are above it.
    fn sentence(&self) -> String {
        let Verdict { rates, limit, .. } = self.verdict;
        let lowest = self.verdict.rate(*limit);
        // Where the cores were busy it is not known how much more the database takes.
        let known = |other: Limit| other != *limit && !(*limit == Limit::Cpu && other == Limit::Database);
        let others = rates.iter().filter(|(other, _)| known(*other));
        let others: Vec<String> =
            others.map(|(other, rate)| format!("{} {} times", other.name(), figure(rate / lowest))).collect();
        let are = if *limit == Limit::CallsInFlight { "are" } else { "is" };
        format!(
            "What limits a job {are} {}: {} devices a second. The others allow more: {} as much.",
            limit.name(),
            figure(lowest),
            others.join(", ")
        )
    }

    fn notes(&self) -> Vec<String> {
        let mut notes: Vec<String> = self.verdict.notes.iter().map(|&note| note.to_owned()).collect();
        notes.extend(self.not_durable.map(|setting| {
            format!("This server does not wait for its disk ({setting} = off): it can lose what was recorded, and a device be wiped twice. Turn it on and measure again.")
        }));
        notes.push(
            "The simulated Graph ran in this process and took its share of the CPU and of the time; the database held no history."
                .to_owned(),
        );
        notes
    }
}

/// With as many digits as say something.
fn figure(value: f64) -> String {
    let decimals = if value >= 10.0 {
        0
    } else if value >= 1.0 {
        1
    } else {
        2
    };
    let text = format!("{value:.decimals$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (n, digit) in whole.chars().enumerate() {
        if n > 0 && (whole.len() - n).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + rest
}

/// Three decimals are more than is measured.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[allow(clippy::cast_precision_loss, reason = "a count of devices")]
fn number(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_has_as_many_digits_as_say_something() {
        let shown = [0.034, 0.5, 4.04, 41.6, 999.6, 12_345.6, 1_234_567.0].map(figure);
        assert_eq!(shown, ["0.03", "0.50", "4.0", "42", "1,000", "12,346", "1,234,567"]);
    }
}
