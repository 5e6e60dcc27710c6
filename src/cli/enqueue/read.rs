//! Reads requests from CSV and NDJSON, a row at a time.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use super::InputFormat;
use super::check::{Cells, Column, Intake};
use crate::cli::{Exit, Failure};
use crate::domain::printable::printable;
use crate::store::NewRequest;
use crate::tabular::Object;

/// A file from this size on is worth a progress bar: below, it is read in an instant.
const LARGE: u64 = 4 << 20;

/// The longest header line.
const HEADER_LIMIT: u64 = 64 << 10;

/// The longest line of NDJSON: far above what the columns may hold.
const LINE_LIMIT: u64 = 1 << 20;

/// Every request in a file, or in standard input.
pub(super) fn file(path: &Path, format: Option<InputFormat>, defaults: NewRequest) -> Result<Intake, Failure> {
    let from_stdin = path == Path::new("-");
    let source = if from_stdin { "standard input".into() } else { printable(&path.to_string_lossy(), 200).to_string() };
    let unreadable = |error: io::Error| Failure::new(Exit::Usage, format!("{source}: {error}"));

    let bar = ProgressBar::hidden();
    let mut input: Box<dyn BufRead> = if from_stdin {
        Box::new(io::stdin().lock())
    } else {
        let file = File::open(path).map_err(unreadable)?;
        let bytes = file.metadata().map_err(unreadable)?.len();
        if bytes >= LARGE {
            show(&bar, bytes);
        }
        Box::new(BufReader::with_capacity(256 << 10, bar.wrap_read(file)))
    };
    let format = format.unwrap_or_else(|| by_ending(path));
    let mut intake = Intake::new(&source, defaults);
    let read = match format {
        InputFormat::Csv => csv(&mut input, &mut intake),
        InputFormat::Ndjson => ndjson(&mut input, &mut intake),
    };
    bar.finish_and_clear();
    read.map_err(unreadable)?;
    intake.finish()
}

fn by_ending(path: &Path) -> InputFormat {
    match path.extension() {
        Some(ending) if ["ndjson", "jsonl"].iter().any(|known| ending.eq_ignore_ascii_case(known)) => {
            InputFormat::Ndjson
        }
        _ => InputFormat::Csv,
    }
}

/// Drawn on stderr, and only where that is a terminal.
fn show(bar: &ProgressBar, bytes: u64) {
    bar.set_length(bytes);
    if let Ok(style) = ProgressStyle::with_template("reading {bar:30} {bytes}/{total_bytes}, {eta} left") {
        bar.set_style(style);
    }
    bar.set_draw_target(indicatif::ProgressDrawTarget::stderr());
}

// --- CSV ----------------------------------------------------------------------

fn csv(input: &mut dyn BufRead, intake: &mut Intake) -> io::Result<()> {
    let mut first = Vec::new();
    input.take(HEADER_LIMIT).read_until(b'\n', &mut first)?;
    if let Some(what) = not_utf8_text(&first) {
        intake.mistake(1, what);
        return Ok(());
    }
    let header = first.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&first).to_vec();
    // No column's name has any of these in it, so whichever stands in the header parts the cells.
    let delimiter = [b',', b';', b'\t'].into_iter().find(|byte| header.contains(byte)).unwrap_or(b',');
    let watched = Watched::new(Cursor::new(header).chain(input));
    let mut reader =
        csv::ReaderBuilder::new().delimiter(delimiter).has_headers(false).flexible(true).from_reader(watched);

    let mut record = csv::ByteRecord::new();
    let mut columns = None;
    let mut last = 0;
    while reader.read_byte_record(&mut record)? {
        let end = reader.position().byte().saturating_sub(1);
        let line = reader.get_mut().line_at(end).saturating_sub(breaks_within(&record));
        // A cell that is never closed ends with the file's last line break instead of before it.
        last = line.max(last + 1);
        match &columns {
            None => match header_columns(&record, intake) {
                Some(found) => columns = Some(found),
                None => return Ok(()),
            },
            Some(columns) => csv_row(last, &record, columns, intake),
        }
    }
    if columns.is_none() {
        intake
            .mistake(1, "there is nothing in it: the first line names the columns, such as `managed_device_id,reason`");
    } else if reader.get_ref().quotes % 2 == 1 {
        intake.mistake(
            last,
            "a quotation mark is never closed, here or above: close it, and write one within a cell twice, the cell in quotation marks",
        );
    }
    Ok(())
}

/// Line breaks within the cells of a record.
fn breaks_within(record: &csv::ByteRecord) -> u64 {
    record.as_slice().split(|byte| *byte == b'\n').skip(1).count() as u64
}

/// Which column each cell belongs to.
fn header_columns(header: &csv::ByteRecord, intake: &mut Intake) -> Option<Vec<Column>> {
    let names: Vec<Cow<'_, str>> = header.iter().map(String::from_utf8_lossy).collect();
    if names.iter().any(|name| name.trim().parse::<crate::domain::id::ManagedDeviceId>().is_ok()) {
        intake.mistake(
            1,
            "the first line has a device ID where column names belong: put a line `managed_device_id` above it",
        );
        return None;
    }
    let mut columns: Vec<Column> = Vec::new();
    let mut good = true;
    for name in &names {
        match Column::named(name.trim()) {
            Ok(column) if columns.contains(&column) => {
                intake.mistake(1, format_args!("column `{column}` stands twice"));
                good = false;
            }
            Ok(column) => columns.push(column),
            Err(what) => {
                intake.mistake(1, what);
                good = false;
            }
        }
    }
    if good && !columns.contains(&Column::ManagedDeviceId) {
        intake.mistake(1, "column `managed_device_id` is missing");
        good = false;
    }
    good.then_some(columns)
}

fn csv_row(line: u64, record: &csv::ByteRecord, columns: &[Column], intake: &mut Intake) {
    if record.len() != columns.len() {
        let what = format!("has {} cells where the first line has {}", record.len(), columns.len());
        return intake.mistake(line, what);
    }
    let mut cells = Cells::default();
    for (column, cell) in columns.iter().zip(record) {
        let Ok(text) = std::str::from_utf8(cell) else {
            let shown = String::from_utf8_lossy(cell);
            return intake.mistake(line, format_args!("{column}: not UTF-8: `{}`", printable(&shown, 60)));
        };
        cells.set(*column, text);
    }
    intake.row(line, &cells);
}

/// Watches the bytes on their way into the CSV reader, whose own line numbers are wrong after empty lines and where lines
/// end in CR LF.
struct Watched<R> {
    input: R,
    /// Bytes passed.
    at: u64,
    /// Where the line breaks are that `line_at` has not counted yet: no more than the reader buffers.
    breaks: VecDeque<u64>,
    counted: u64,
    /// They come in pairs in any CSV. Where one is never closed, the rest of the file would be taken for one cell, and its
    /// requests would be lost without a word.
    quotes: u64,
}

impl<R: Read> Watched<R> {
    fn new(input: R) -> Self {
        Self { input, at: 0, breaks: VecDeque::new(), counted: 0, quotes: 0 }
    }

    /// The number of the line that the byte at `offset` stands on, or ends; offsets must not go back.
    fn line_at(&mut self, offset: u64) -> u64 {
        while self.breaks.front().is_some_and(|at| *at < offset) {
            self.breaks.pop_front();
            self.counted += 1;
        }
        self.counted + 1
    }
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(buffer)?;
        for (at, byte) in (self.at..).zip(buffer.get(..n).unwrap_or_default()) {
            match byte {
                b'\n' => self.breaks.push_back(at),
                b'"' => self.quotes += 1,
                _ => {}
            }
        }
        self.at += n as u64;
        Ok(n)
    }
}

/// Excel's "Unicode text", and anything binary.
fn not_utf8_text(first: &[u8]) -> Option<&'static str> {
    if first.starts_with(b"\xff\xfe") || first.starts_with(b"\xfe\xff") {
        Some("the file is UTF-16: save it as UTF-8 (in Excel: CSV UTF-8)")
    } else if first.starts_with(b"PK\x03\x04") {
        Some("the file is a workbook or an archive: save it as CSV UTF-8")
    } else {
        None
    }
}

// --- NDJSON -------------------------------------------------------------------

fn ndjson(input: &mut dyn BufRead, intake: &mut Intake) -> io::Result<()> {
    let mut text = Vec::new();
    for line in 1.. {
        text.clear();
        if input.take(LINE_LIMIT + 1).read_until(b'\n', &mut text)? == 0 {
            break;
        }
        if line == 1
            && let Some(what) = not_utf8_text(&text)
        {
            intake.mistake(1, what);
            break;
        }
        if text.len() as u64 > LINE_LIMIT {
            intake.mistake(line, "the line is longer than 1 MiB: NDJSON has one object a line");
            break;
        }
        let bare = if line == 1 { text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text) } else { &text };
        if !bare.trim_ascii().is_empty() {
            ndjson_row(line, bare, intake);
        }
    }
    Ok(())
}

fn ndjson_row(line: u64, text: &[u8], intake: &mut Intake) {
    let fields = match serde_json::from_slice::<Object>(text) {
        Ok(Object(fields)) => fields,
        Err(error) => {
            let said = error.to_string();
            // Its "line 1" is the line of this object, not of the file.
            let said = said.split(" at line ").next().unwrap_or_default();
            return match error.column() {
                0 => intake.mistake(line, format_args!("not a JSON object: {said}")),
                column => intake.mistake(line, format_args!("not a JSON object, at column {column}: {said}")),
            };
        }
    };
    let mut texts: Vec<(Column, Cow<'_, str>)> = Vec::with_capacity(fields.len());
    let mut good = true;
    for (key, value) in &fields {
        let read = Column::named(key).and_then(|column| match value {
            _ if texts.iter().any(|(other, _)| *other == column) => Err(format!("`{column}` stands twice")),
            Value::Null => Ok((column, Cow::Borrowed(""))),
            Value::String(text) => Ok((column, Cow::Borrowed(text.as_str()))),
            Value::Bool(_) | Value::Number(_) => Ok((column, Cow::Owned(value.to_string()))),
            Value::Array(_) | Value::Object(_) => Err(format!("{column}: expected one value, not a list or an object")),
        });
        match read {
            Ok(cell) => texts.push(cell),
            Err(what) => {
                intake.mistake(line, what.replace("unknown column", "unknown key"));
                good = false;
            }
        }
    }
    if good {
        let mut cells = Cells::default();
        for (column, text) in &texts {
            cells.set(*column, text);
        }
        intake.row(line, &cells);
    }
}
