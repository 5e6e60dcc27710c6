//! Pieces of the page.

use chrono::{DateTime, Utc};
use maud::{Markup, html};

use crate::domain::printable::printable;
use crate::domain::span::between;
use crate::ops::health::Check;
use crate::ops::needs::{Need, requests};
use crate::store::{Overview, Status, TenantStatus};

/// Characters of a text that are shown before it is folded.
const FOLDED: usize = 160;

/// Text from outside, on one line and in a direction of its own.
pub(super) fn outside(text: &str, max_chars: usize) -> Markup {
    html! { bdi { (printable(text, max_chars).to_string()) } }
}

/// The same, where it may be long: folded, and whole on demand.
pub(super) fn long(text: &str) -> Markup {
    if text.chars().count() <= FOLDED {
        return outside(text, FOLDED);
    }
    html! { details { summary { (outside(text, FOLDED)) } (outside(text, 4000)) } }
}

/// An id that one click selects.
pub(super) fn id(text: &str) -> Markup {
    html! { code.id { (printable(text, 64).to_string()) } }
}

pub(super) fn time(at: DateTime<Utc>) -> Markup {
    html! { time datetime=(at.to_rfc3339()) { (at.format("%Y-%m-%d %H:%M:%S").to_string()) } }
}

pub(super) fn ago(at: DateTime<Utc>, now: DateTime<Utc>) -> Markup {
    html! { time datetime=(at.to_rfc3339()) title={ (at.format("%Y-%m-%d %H:%M:%S").to_string()) " UTC" } { (between(at, now)) " ago" } }
}

/// Time from the one to the other, to the tenth of a second where it is short.
pub(super) fn took(from: DateTime<Utc>, to: DateTime<Utc>) -> String {
    let ms = (to - from).num_milliseconds().max(0);
    if ms < 60_000 { format!("{}.{} s", ms / 1000, ms % 1000 / 100) } else { between(from, to) }
}

/// What may be wider than the window, and then scrolls by itself: also with the keyboard.
pub(super) fn scroll(label: &str, content: &Markup) -> Markup {
    html! { div.scroll tabindex="0" role="region" aria-label=(label) { (content) } }
}

pub(super) fn empty(text: &str) -> Markup {
    html! { p.quiet { (text) } }
}

/// A state or bucket: a word, with a mark that says how it is without colour.
pub(super) fn state(word: &str) -> Markup {
    let (class, mark) = look(word);
    html! { span.state.(class) { span aria-hidden="true" { (mark) } " " (printable(&word.replace('_', " "), 40).to_string()) } }
}

/// The class, which is its colour, and the mark of a state.
pub(super) fn look(word: &str) -> (&'static str, &'static str) {
    match word.strip_prefix("completion_").unwrap_or(word) {
        "successful" | "answered" | "done" => ("good", "✓"),
        "failed" | "not_found" | "not_supported" => ("bad", "✕"),
        "unknown" | "held" | "untracked" => ("doubt", "?"),
        "sending" | "followed" => ("open", "→"),
        "not_carried_out" | "not_sent" => ("open", "↺"),
        "queued" | "requested" => ("open", "·"),
        _ => ("other", "–"),
    }
}

/// What needs a person, on top of everything.
pub(super) fn attention(needs: &[Need], unready: &[Check]) -> Markup {
    // A blocked tenant is among the needs already.
    let unready: Vec<&Check> = unready.iter().filter(|check| !check.name().starts_with("tenant ")).collect();
    let count = needs.len() + unready.len();
    html! {
        @if count == 0 {
            section.calm { h2 { span aria-hidden="true" { "✓ " } "Nothing needs you" } }
        } @else {
            section.need {
                h2 { span aria-hidden="true" { "! " } (count) @if count == 1 { " thing needs you" } @else { " things need you" } }
                ol {
                    @for need in needs { li {
                        b { (upper(&need.what)) }
                        @if let Some(why) = &need.why { ": " (long(why)) }
                        p { (upper(need.advice)) ":" }
                        pre.command { (need.command) }
                        @if !need.note.is_empty() { p { (need.note.trim()) } }
                    } }
                    @for check in unready { li { b { (upper(check.name())) } ": " (long(check.detail())) } }
                }
            }
        }
    }
}

fn upper(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// What is held, and the doubts that the daemon still looks into by itself, one by one.
pub(super) fn doubts(overview: &Overview) -> Markup {
    let now = overview.status.now;
    let tenants = &overview.status.tenants;
    let all: i64 = tenants.iter().map(|tenant| tenant.unknown + tenant.held).sum();
    let unknown: i64 = tenants.iter().map(|tenant| tenant.unknown).sum();
    let more = all.saturating_sub(i64::try_from(overview.doubtful.len()).unwrap_or(i64::MAX));
    html! {
        @if all > 0 {
            section.doubts aria-labelledby="doubts" {
                h2 #doubts { span aria-hidden="true" { "? " } "Held and in doubt" }
                @if unknown > 0 { p {
                    (upper(&requests(unknown))) " in doubt: the daemon reads back what happened, and holds what that does not show. If you know it already:"
                    pre.command { "reprovisiond resolve --request N --as successful|retry|failed --by NAME --reason TEXT" }
                } }
                (super::tables::doubtful(&overview.doubtful, now))
                @if more > 0 { p.quiet { "The first " (overview.doubtful.len()) " of " (grouped(all)) "." } }
            }
        }
    }
}

/// What keeps requests from being sent, on purpose or for a time.
pub(super) fn holds(status: &Status) -> Markup {
    let now = status.now;
    let lines: Vec<Markup> = status.tenants.iter().flat_map(|tenant| held_back(tenant, now)).collect();
    let alone = status.paused_devices + status.paused_requests;
    html! {
        @if !lines.is_empty() || alone > 0 {
            section.holds {
                h2 { span aria-hidden="true" { "‖ " } "Held back" }
                ul.plain {
                    @for line in lines { li { (line) } }
                    @if alone > 0 { li {
                        "Paused by themselves: " (status.paused_devices) " devices and " (requests(status.paused_requests)) "."
                    } }
                }
            }
        }
    }
}

fn held_back(tenant: &TenantStatus, now: DateTime<Utc>) -> Vec<Markup> {
    let name = printable(&tenant.tenant, 64).to_string();
    let mut lines = Vec::new();
    if let Some(since) = tenant.paused_at {
        lines.push(html! {
            b { "Tenant " (name) " is paused" } ", " (ago(since, now))
            @if let Some(by) = &tenant.paused_by { ", by " (outside(by, 80)) }
            @if let Some(reason) = &tenant.pause_reason { ": " (long(reason)) }
            pre.command { "reprovisiond resume --tenant " (name) " --by NAME --reason TEXT" }
        });
    }
    if let Some(at) = tenant.probe_at.filter(|at| *at > now) {
        lines.push(html! { b { "Tenant " (name) } ", which is blocked, is probed with one small call in " (between(now, at)) "." });
    }
    if let Some(until) = tenant.wait_until.filter(|until| *until > now) {
        lines.push(html! {
            b { "Tenant " (name) " waits" } " for another " (between(now, until))
            @if let Some(reason) = &tenant.wait_reason { ": " (long(reason)) }
        });
    }
    if tenant.cautious || tenant.calls_in_doubt > 0 {
        lines.push(html! {
            b { "Tenant " (name) " is cautious" } " after a doubt: one small call at a time until one is answered, and none at all at "
            code { "limits.open_doubts" } " calls in doubt. There " @if tenant.calls_in_doubt == 1 { "is 1" } @else { "are " (tenant.calls_in_doubt) } " now."
        });
    }
    lines
}

/// `1234567` as `1,234,567`.
pub(super) fn grouped(count: i64) -> String {
    let digits = count.unsigned_abs().to_string();
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if count < 0 { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped_by_three() {
        for (count, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567"), (-1000, "-1,000")] {
            assert_eq!(grouped(count), text);
        }
    }

    #[test]
    fn hostile_text_stays_text() {
        let shown = outside("<script>alert(1)</script>\"'\n\u{202e}x", 100).into_string();
        assert_eq!(shown, "<bdi>&lt;script&gt;alert(1)&lt;/script&gt;&quot;'\\n\\u{202e}x</bdi>");
    }
}
