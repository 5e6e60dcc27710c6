//! Small charts as inline SVG, each with its scale, and its numbers as text beside it.

use std::collections::BTreeMap;
use std::time::Duration;

use maud::{Markup, html};

use super::parts::{grouped, look, state};
use crate::store::Activity;

/// A stretch of time and how it is cut.
pub(super) struct Window {
    pub(super) name: &'static str,
    pub(super) span: Duration,
    pub(super) slot: Duration,
    pub(super) slots: usize,
    /// What a slot is called.
    pub(super) each: &'static str,
    /// What is written below: its beginning, its middle, its end.
    pub(super) marks: [&'static str; 3],
}

/// What is counted.
pub(super) struct Subject {
    /// `Activity::of`
    pub(super) of: &'static str,
    pub(super) title: &'static str,
    pub(super) unit: &'static str,
}

const WIDTH: usize = 480;
const HEIGHT: i64 = 96;

/// The classes of states, lowest in the stack first.
const SERIES: [&str; 5] = ["good", "open", "other", "doubt", "bad"];

/// One subject in one window.
pub(super) fn chart(window: &Window, activity: &[Activity], subject: &Subject) -> Markup {
    let rows: Vec<&Activity> = activity.iter().filter(|row| row.of == subject.of).collect();
    let mut totals: BTreeMap<&str, i64> = BTreeMap::new();
    for row in &rows {
        *totals.entry(&row.word).or_default() += row.count;
    }
    let total: i64 = totals.values().sum();
    let stacks = stacks(window, &rows);
    let most = stacks.iter().map(|stack| stack.iter().sum::<i64>()).max().unwrap_or(0);
    let scale = round_up(most);
    html! {
        figure {
            figcaption { (window.name) ": " @if total > 0 { b { (grouped(total)) " " (subject.unit) } } @else { "none" } }
            @if total > 0 {
                div.plot {
                    div.values aria-hidden="true" { span { (grouped(scale)) } " " span { "0" } }
                    svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="img" aria-label={ (subject.title) ", " (window.name) ": " (total) " " (subject.unit) ", at most " (most) " a " (window.each) } {
                        @for y in [0, HEIGHT / 2, HEIGHT] { line.grid x1="0" y1=(y) x2=(WIDTH) y2=(y) vector-effect="non-scaling-stroke" {} }
                        @for (n, stack) in stacks.iter().enumerate() { (bar(window, n, stack, scale)) }
                    }
                    div.times aria-hidden="true" { @for mark in window.marks { span { (mark) } " " } }
                }
                p.quiet.scale { (subject.unit) " a " (window.each) ", " (grouped(most)) " at most" }
                ul.totals { @for (word, count) in &totals { li { (state(word)) " " b { (grouped(*count)) } } } }
            }
        }
    }
}

/// Counts by slot, oldest first, and by series.
fn stacks(window: &Window, rows: &[&Activity]) -> Vec<[i64; SERIES.len()]> {
    let mut stacks = vec![[0; SERIES.len()]; window.slots];
    for row in rows {
        // The clock may have been set back since: what lies in the future is now.
        let back = usize::try_from(row.slot).unwrap_or(0).min(window.slots - 1);
        let (class, _) = look(&row.word);
        if let Some(which) = SERIES.iter().position(|series| *series == class) {
            stacks[window.slots - 1 - back][which] += row.count;
        }
    }
    stacks
}

/// The next of 1, 2, 5, 10, 20, 50 and so on.
fn round_up(most: i64) -> i64 {
    let mut step = 1_i64;
    loop {
        for round in [step, step.saturating_mul(2), step.saturating_mul(5)] {
            if round >= most {
                return round;
            }
        }
        step = step.saturating_mul(10);
    }
}

fn bar(window: &Window, n: usize, stack: &[i64], scale: i64) -> Markup {
    let step = WIDTH / window.slots;
    let mut top = HEIGHT;
    let mut pieces = Vec::new();
    for (class, count) in SERIES.iter().zip(stack) {
        if *count > 0 {
            // One device in a thousand is still seen.
            let share = (count.saturating_mul(HEIGHT) / scale).clamp(2, HEIGHT);
            top = (top - share).max(0);
            pieces.push((class, top, share));
        }
    }
    html! {
        @for (class, y, height) in pieces {
            rect class=(class) x=(n * step) y=(y) width=(step - 1) height=(height) {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::HOUR;
    use super::*;

    fn row(slot: i64, word: &str, count: i64) -> Activity {
        Activity { slot, of: "results".to_owned(), word: word.to_owned(), count }
    }

    #[test]
    fn a_slot_stands_where_its_time_is_and_none_is_lost_at_the_ends() {
        let rows = [row(0, "successful", 3), row(59, "failed", 1), row(60, "failed", 2), row(-1, "expired", 4)];
        let stacks = stacks(&HOUR, &rows.iter().collect::<Vec<_>>());
        assert_eq!((stacks[59], stacks[0]), ([3, 0, 4, 0, 0], [0, 0, 0, 0, 3]));
        assert_eq!(stacks.iter().flatten().sum::<i64>(), 10);
    }

    #[test]
    fn a_scale_is_a_round_number_that_is_not_exceeded() {
        for (most, scale) in [(0, 1), (1, 1), (3, 5), (20, 20), (21, 50), (51, 100), (1234, 2000)] {
            assert_eq!(round_up(most), scale, "{most}");
        }
        assert_eq!(round_up(i64::MAX), i64::MAX);
    }
}
