//! Small charts as inline SVG, each with its numbers as text beside it.

use std::collections::BTreeMap;
use std::time::Duration;

use maud::{Markup, html};

use super::parts::{grouped, state};
use crate::store::Activity;

/// A stretch of time and how it is cut.
pub(super) struct Window {
    pub(super) name: &'static str,
    pub(super) span: Duration,
    pub(super) slot: Duration,
    pub(super) slots: usize,
    /// What a slot is called.
    pub(super) each: &'static str,
}

const WIDTH: usize = 480;
const HEIGHT: usize = 72;

/// One series, lowest in the stack first, and the words that count for it.
type Series = (&'static str, fn(&str) -> bool);

const RESULTS: [Series; 3] = [
    ("good", |word| word == "successful"),
    ("other", |word| !matches!(word, "successful" | "failed")),
    ("bad", |word| word == "failed"),
];

const CALLS: [Series; 3] = [
    ("good", |word| word == "answered"),
    ("other", |word| !matches!(word, "answered" | "unknown")),
    ("bad", |word| word == "unknown"),
];

/// Results and calls of a window.
pub(super) fn window(window: &Window, activity: &[Activity]) -> Markup {
    html! {
        div {
            h3 { (window.name) }
            (chart(window, activity, "results", "Devices with a final result", &RESULTS))
            (chart(window, activity, "calls", "Calls to Graph", &CALLS))
        }
    }
}

fn chart(window: &Window, activity: &[Activity], of: &str, title: &str, series: &[Series]) -> Markup {
    let rows: Vec<&Activity> = activity.iter().filter(|row| row.of == of).collect();
    let mut totals: BTreeMap<&str, i64> = BTreeMap::new();
    for row in &rows {
        *totals.entry(&row.word).or_default() += row.count;
    }
    let total: i64 = totals.values().sum();
    let stacks = stacks(window, &rows, series);
    let most = stacks.iter().map(|stack| stack.iter().sum::<i64>()).max().unwrap_or(0);
    html! {
        figure {
            figcaption {
                (title) ": " b { (grouped(total)) }
                @if total > 0 { span.quiet { ", at most " (grouped(most)) " in one " (window.each) } }
            }
            @if total > 0 {
                svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="img" aria-label={ (title) ", " (window.name) ": " (total) } {
                    @for (n, stack) in stacks.iter().enumerate() { (bar(window, n, stack, most, series)) }
                    line.axis x1="0" y1=(HEIGHT) x2=(WIDTH) y2=(HEIGHT) {}
                }
                div.axis aria-hidden="true" { span { (ago(window.span)) " ago" } span { "now" } }
                ul.totals { @for (word, count) in &totals { li { (state(word)) " " b { (grouped(*count)) } } } }
            } @else {
                p.quiet { "None." }
            }
        }
    }
}

/// Counts by slot, oldest first, and by series.
fn stacks(window: &Window, rows: &[&Activity], series: &[Series]) -> Vec<Vec<i64>> {
    let mut stacks = vec![vec![0; series.len()]; window.slots];
    for row in rows {
        // The clock may have been set back since: what lies in the future is now.
        let back = usize::try_from(row.slot).unwrap_or(0).min(window.slots - 1);
        if let Some(which) = series.iter().position(|(_, counts)| counts(&row.word)) {
            stacks[window.slots - 1 - back][which] += row.count;
        }
    }
    stacks
}

fn bar(window: &Window, n: usize, stack: &[i64], most: i64, series: &[Series]) -> Markup {
    let step = WIDTH / window.slots;
    let mut top = HEIGHT;
    let mut pieces = Vec::new();
    for ((class, _), count) in series.iter().zip(stack) {
        if *count > 0 {
            // One device in a thousand is still seen.
            let share = usize::try_from(*count * HEIGHT as i64 / most.max(1)).unwrap_or(HEIGHT).clamp(2, HEIGHT);
            top = top.saturating_sub(share);
            pieces.push((class, top, share));
        }
    }
    html! {
        @for (class, y, height) in pieces {
            rect class=(class) x=(n * step) y=(y) width=(step - 1) height=(height) {}
        }
    }
}

fn ago(span: Duration) -> String {
    match span.as_secs() / 3600 {
        1 => "1 h".to_owned(),
        hours => format!("{hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Window = Window {
        name: "Last hour",
        span: Duration::from_hours(1),
        slot: Duration::from_mins(1),
        slots: 60,
        each: "minute",
    };

    fn row(slot: i64, word: &str, count: i64) -> Activity {
        Activity { slot, of: "results".to_owned(), word: word.to_owned(), count }
    }

    #[test]
    fn a_slot_stands_where_its_time_is_and_none_is_lost_at_the_ends() {
        let rows = [row(0, "successful", 3), row(59, "failed", 1), row(60, "failed", 2), row(-1, "expired", 4)];
        let stacks = stacks(&WINDOW, &rows.iter().collect::<Vec<_>>(), &RESULTS);
        assert_eq!((stacks[59].as_slice(), stacks[0].as_slice()), ([3, 4, 0].as_slice(), [0, 0, 3].as_slice()));
        assert_eq!(stacks.iter().flatten().sum::<i64>(), 10);
    }
}
