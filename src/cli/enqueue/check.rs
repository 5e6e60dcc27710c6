//! The rules that the databases' triggers hold too, judged here first so that every mistake is told at once, with its
//! place.

use std::collections::HashMap;
use std::fmt::{self, Write as _};

use chrono::{DateTime, Datelike as _, SubsecRound as _, Utc};
use sha2::{Digest as _, Sha256};

use crate::cli::text::text;
use crate::cli::{Exit, Failure};
use crate::domain::id::{ManagedDeviceId, TenantName};
use crate::domain::printable::printable;
use crate::store::NewRequest;

/// Mistakes that are shown; the others are counted.
const SHOWN: usize = 20;

/// The input that is the command line itself; its places are counted, not its lines.
pub(super) const ARGUMENTS: &str = "DEVICE_ID";

/// The columns of the contract that a producer may set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    ManagedDeviceId,
    Tenant,
    RequestedBy,
    Reason,
    ExternalId,
    Priority,
    NotBefore,
    ExpiresAt,
    Force,
}

impl Column {
    const ALL: [(Self, &str); 9] = [
        (Self::ManagedDeviceId, "managed_device_id"),
        (Self::Tenant, "tenant"),
        (Self::RequestedBy, "requested_by"),
        (Self::Reason, "reason"),
        (Self::ExternalId, "external_id"),
        (Self::Priority, "priority"),
        (Self::NotBefore, "not_before"),
        (Self::ExpiresAt, "expires_at"),
        (Self::Force, "force"),
    ];

    /// The column of this name, or a sentence that says which there are.
    pub(super) fn named(name: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(_, known)| *known == name).map(|(column, _)| *column);
        found.ok_or_else(|| {
            let known = Self::ALL.map(|(_, known)| known);
            format!("unknown column `{}`{}", printable(name, 60), did_you_mean(name, &known))
        })
    }
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::ALL[*self as usize].1)
    }
}

/// `: did you mean …?`, or the whole list where nothing is near.
fn did_you_mean(name: &str, known: &[&str]) -> String {
    // Case and separators are what people vary: DeviceId, managed-device-id.
    let bare = |text: &str| text.chars().filter(|c| c.is_alphanumeric()).collect::<String>().to_lowercase();
    let nearness = |candidate: &str| strsim::jaro_winkler(&bare(name), &bare(candidate));
    let part = known.iter().find(|candidate| bare(name).len() > 3 && bare(candidate).contains(&bare(name)));
    match part.or_else(|| known.iter().max_by(|a, b| nearness(a).total_cmp(&nearness(b)))) {
        Some(nearest) if part.is_some() || nearness(nearest) > 0.75 => format!(": did you mean `{nearest}`?"),
        _ => format!(": known are {}", known.join(", ")),
    }
}

/// One row as texts. An empty one counts as none.
#[derive(Debug, Default)]
pub(super) struct Cells<'a>([Option<&'a str>; 9]);

impl<'a> Cells<'a> {
    pub(super) fn set(&mut self, column: Column, text: &'a str) {
        self.0[column as usize] = Some(text).filter(|text| !text.is_empty());
    }

    fn get(&self, column: Column) -> Option<&'a str> {
        self.0[column as usize]
    }
}

/// What of a request is compared with earlier ones: where it stood, and a digest of what must be equal.
#[derive(Debug, Clone, Copy)]
struct Seen {
    line: u64,
    content: u128,
}

/// The requests of one input, and what is wrong with it.
#[derive(Debug)]
pub(super) struct Intake {
    /// How messages name the input.
    pub(super) source: String,
    /// The good rows.
    pub(super) requests: Vec<NewRequest>,
    lines: Vec<u64>,
    defaults: NewRequest,
    external_ids: HashMap<u128, Seen>,
    devices: HashMap<u128, Seen>,
    mistakes: Vec<String>,
    more: u64,
}

impl Intake {
    pub(super) fn new(source: &str, defaults: NewRequest) -> Self {
        Self {
            source: source.to_owned(),
            requests: Vec::new(),
            lines: Vec::new(),
            defaults,
            external_ids: HashMap::new(),
            devices: HashMap::new(),
            mistakes: Vec::new(),
            more: 0,
        }
    }

    /// Notes what is wrong at a line.
    pub(super) fn mistake(&mut self, line: u64, what: impl fmt::Display) {
        if self.mistakes.len() < SHOWN {
            let parted = if self.source == ARGUMENTS { ' ' } else { ':' };
            self.mistakes.push(format!("{}{parted}{line}: {what}", self.source));
        } else {
            self.more += 1;
        }
    }

    /// Judges a row and keeps it.
    pub(super) fn row(&mut self, line: u64, cells: &Cells<'_>) {
        let before = self.mistakes.len() as u64 + self.more;
        let request = self.checked(line, cells);
        if let Some(device) = cells.get(Column::ManagedDeviceId).and_then(|text| text.trim().parse().ok()) {
            self.twice(line, device, &request);
        }
        // A wrong row makes the whole input wrong, so nothing after the first mistake is kept.
        if before == 0 && self.mistakes.is_empty() {
            self.requests.push(request);
            self.lines.push(line);
        }
    }

    /// The requests, or every mistake at once.
    pub(super) fn finish(mut self) -> Result<Self, Failure> {
        // What was compared is done with, and for a million rows it is worth giving back.
        (self.external_ids, self.devices) = (HashMap::new(), HashMap::new());
        if self.mistakes.is_empty() { Ok(self) } else { Err(told(&self.mistakes, self.more)) }
    }

    /// The rows whose tenant the database does not know, if there are any.
    pub(super) fn unknown_tenants(&self, known: &[&str]) -> Option<Failure> {
        let mut unknown = Self::new(&self.source, NewRequest::default());
        for (line, request) in self.lines.iter().zip(&self.requests) {
            let tenant = request.tenant.as_deref().unwrap_or("default");
            if !known.contains(&tenant) {
                unknown.mistake(
                    *line,
                    format_args!(
                        "tenant: `{tenant}` is not a configured tenant{} (to add it: [tenants.{tenant}] in the configuration, then `reprovisiond migrate`)",
                        did_you_mean(tenant, known)
                    ),
                );
            }
        }
        unknown.finish().err()
    }

    fn checked(&mut self, line: u64, cells: &Cells<'_>) -> NewRequest {
        let defaults = self.defaults.clone();
        let managed_device_id = match cells.get(Column::ManagedDeviceId) {
            None => {
                self.mistake(line, "managed_device_id: missing");
                String::new()
            }
            Some(_) => self
                .cell(line, cells, Column::ManagedDeviceId, |text| {
                    text.trim().parse::<ManagedDeviceId>().map(|id| id.to_string()).map_err(|e| e.to_string())
                })
                .unwrap_or_default(),
        };
        let tenant = self.cell(line, cells, Column::Tenant, |text| {
            text.trim().parse::<TenantName>().map(|name| name.to_string()).map_err(|e| e.to_string())
        });
        let request = NewRequest {
            managed_device_id,
            tenant: tenant.or(defaults.tenant),
            requested_by: self.cell(line, cells, Column::RequestedBy, |t| text(t, 256)).or(defaults.requested_by),
            reason: self.cell(line, cells, Column::Reason, |t| text(t, 4000)).or(defaults.reason),
            external_id: self.cell(line, cells, Column::ExternalId, |t| text(t, 256)).or(defaults.external_id),
            priority: self.cell(line, cells, Column::Priority, priority).unwrap_or(defaults.priority),
            not_before: self.cell(line, cells, Column::NotBefore, time).or(defaults.not_before),
            expires_at: self.cell(line, cells, Column::ExpiresAt, time).or(defaults.expires_at),
            force: self.cell(line, cells, Column::Force, truth).unwrap_or(defaults.force),
        };
        if let (Some(not_before), Some(expires_at)) = (request.not_before, request.expires_at)
            && expires_at <= not_before
        {
            self.mistake(line, format_args!("expires_at: must lie after not_before, which is {not_before:?}"));
        }
        request
    }

    /// Reads one cell; a mistake names the column and shows the text.
    fn cell<T>(
        &mut self,
        line: u64,
        cells: &Cells<'_>,
        column: Column,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let given = cells.get(column)?;
        match read(given) {
            Ok(value) => Some(value),
            Err(what) => {
                self.mistake(line, format_args!("{column} `{}`: {what}", printable(given, 60)));
                None
            }
        }
    }

    /// What stands twice and should not. The same row twice, by its `external_id`, is harmless: the second is not queued.
    fn twice(&mut self, line: u64, device: ManagedDeviceId, request: &NewRequest) {
        let tenant = request.tenant.as_deref().unwrap_or("default");
        let (from, until) = (request.not_before.map(|at| at.timestamp_millis()), request.expires_at);
        let id = request.external_id.as_deref();
        if let Some(id) = id {
            let rest = (&request.requested_by, &request.reason, request.priority, until, request.force);
            let seen = Seen { line, content: digest(&(device, from, rest)) };
            match *self.external_ids.entry(digest(&(tenant, id))).or_insert(seen) {
                first if first.line == line => {}
                first if first.content == seen.content => return,
                first => {
                    return self.mistake(
                        line,
                        format_args!(
                            "external_id: `{}` stands at line {} with other content, and only one of the two would be queued",
                            printable(id, 60),
                            first.line
                        ),
                    );
                }
            }
        }
        let first = self.devices.entry(digest(&(tenant, device, from))).or_insert(Seen { line, content: 0 }).line;
        if first != line {
            self.mistake(
                line,
                format_args!(
                    "managed_device_id: {device} stands at {} {first} too, and would be wiped twice: remove one, or give them different not_before",
                    self.word()
                ),
            );
        }
    }

    /// What a place in this input is called.
    fn word(&self) -> &'static str {
        if self.source == ARGUMENTS { "place" } else { "line" }
    }
}

/// 128 bits of SHA-256 stand for a text: a million rows are compared in a few megabytes, and no two differ unnoticed.
fn digest(content: &impl fmt::Debug) -> u128 {
    let hash = Sha256::digest(format!("{content:?}"));
    hash.iter().take(16).fold(0, |bits, byte| (bits << 8) | u128::from(*byte))
}

fn told(mistakes: &[String], more: u64) -> Failure {
    let count = mistakes.len() as u64 + more;
    let mut text = if count == 1 {
        "nothing was queued, there is 1 mistake:".to_owned()
    } else {
        format!("nothing was queued, there are {count} mistakes:")
    };
    for mistake in mistakes {
        let _ = write!(text, "\n  {mistake}");
    }
    if more > 0 {
        let _ = write!(text, "\n  and {more} more");
    }
    Failure::new(Exit::Usage, text)
}

/// A whole number from -1000 to 1000.
pub(super) fn priority(given: &str) -> Result<i32, String> {
    let number = given.trim().parse().ok().filter(|number| (-1000..=1000).contains(number));
    number.ok_or_else(|| "expected a whole number from -1000 to 1000 (higher goes first)".to_owned())
}

/// An instant, to the millisecond that SQLite keeps.
pub(super) fn time(given: &str) -> Result<DateTime<Utc>, String> {
    let at = DateTime::parse_from_rfc3339(given.trim()).ok().map(|at| at.with_timezone(&Utc).trunc_subsecs(3));
    at.filter(|at| (1..=9999).contains(&at.year()))
        .ok_or_else(|| "expected a time with its offset, such as 2026-01-31T22:00:00Z".to_owned())
}

/// A truth value.
fn truth(given: &str) -> Result<bool, String> {
    match given.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "1" => Ok(true),
        "false" | "no" | "0" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}
