//! The one way to write rows to stdout: as a table, as JSON, as a JSON object a line, or as CSV.

use std::io::{self, BufWriter, Stdout, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::{Exit, Failure};
use crate::domain::printable::printable;
use crate::store::StoreError;
use crate::tabular::{Object, csv_cell, csv_line};

/// Why a command stops before its end.
#[derive(Debug)]
pub(super) enum Stop {
    /// Nobody reads stdout any more. No failure: `reprovisiond results | head` has what it wants.
    Closed,
    /// Anything else.
    Failed(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::Closed
        } else {
            Self::Failed(Failure::new(Exit::Failure, format!("stdout: {error}")))
        }
    }
}

/// How a command ends that stopped early.
pub(super) fn ended(end: Result<(), Stop>) -> Result<(), Failure> {
    match end {
        Ok(()) | Err(Stop::Closed) => Ok(()),
        Err(Stop::Failed(failure)) => Err(failure),
    }
}

/// stdout, written in large pieces.
pub(super) fn stdout() -> BufWriter<Stdout> {
    BufWriter::with_capacity(64 * 1024, io::stdout())
}

/// Writes `text`, and everything before it, at once.
pub(super) fn write(out: &mut impl Write, text: &str) -> io::Result<()> {
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// The formats that programs read. Rows are structs; their field names are the columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// One array.
    Json,
    /// An object a line.
    Ndjson,
    /// A header and a line a row.
    Csv,
}

/// Writes rows one after another and keeps none of them.
pub(super) struct Rows<W: Write> {
    out: W,
    format: Format,
    columns: &'static [&'static str],
    written: u64,
}

impl<W: Write> Rows<W> {
    /// `columns`: the header of a CSV, which is written even if no row follows.
    pub(super) fn new(out: W, format: Format, columns: &'static [&'static str]) -> Self {
        Self { out, format, columns, written: 0 }
    }

    /// One row.
    pub(super) fn row(&mut self, row: &impl Serialize) -> io::Result<()> {
        if self.written == 0 {
            self.begin()?;
        }
        match self.format {
            Format::Json => {
                self.out.write_all(if self.written == 0 { b"\n" } else { b",\n" })?;
                serde_json::to_writer(&mut self.out, row)?;
            }
            Format::Ndjson => {
                serde_json::to_writer(&mut self.out, row)?;
                self.out.write_all(b"\n")?;
            }
            Format::Csv => {
                let fields = Object::of(row)?.0;
                debug_assert!(fields.iter().map(|(name, _)| name).eq(self.columns), "columns are the row's fields");
                csv_line(&mut self.out, fields.into_iter().map(|(_, value)| csv_cell(value)))?;
            }
        }
        self.written += 1;
        Ok(())
    }

    /// What rows are still buffered goes out now.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// The end of the document.
    pub(super) fn finish(mut self) -> io::Result<()> {
        if self.written == 0 {
            self.begin()?;
        }
        if self.format == Format::Json {
            self.out.write_all(if self.written == 0 { b"]\n" } else { b"\n]\n" })?;
        }
        self.out.flush()
    }

    fn begin(&mut self) -> io::Result<()> {
        match self.format {
            Format::Json => self.out.write_all(b"["),
            Format::Ndjson => Ok(()),
            Format::Csv => csv_line(&mut self.out, self.columns.iter()),
        }
    }
}

/// A table for people: columns two spaces apart, no lines to break when it is copied or piped, and no wrapping, so that
/// a GUID stays one word.
pub(super) struct Columns(Table);

impl Columns {
    /// With these headings.
    pub(super) fn new(headings: &[&str]) -> Self {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(headings);
        Self(table)
    }

    /// One row. Control characters are shown as escapes, and a long text is cut.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.0.add_row(cells.into_iter().map(|cell| printable(&cell, 100).to_string()));
    }

    /// The columns of these numbers are flush right.
    pub(super) fn numbers(&mut self, columns: impl IntoIterator<Item = usize>) {
        for n in columns {
            if let Some(column) = self.0.column_mut(n) {
                column.set_cell_alignment(comfy_table::CellAlignment::Right);
            }
        }
    }

    /// The lines, each with its line break.
    pub(super) fn text(mut self) -> String {
        for column in self.0.column_iter_mut() {
            column.set_padding((0, 2));
        }
        self.0.lines().flat_map(|line| [line.trim_end().to_owned(), "\n".to_owned()]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Row {
        id: i64,
        text: Option<&'static str>,
    }

    fn written(format: Format, texts: &[Option<&'static str>]) -> String {
        let mut out = Vec::new();
        let mut rows = Rows::new(&mut out, format, &["id", "text"]);
        for (id, text) in (-1..).zip(texts) {
            rows.row(&Row { id, text: *text }).unwrap();
        }
        rows.finish().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn rows_stream_in_every_format_and_none_is_a_document_too() {
        let rows = [Some("a,\"b\"\n"), None];
        assert_eq!(
            written(Format::Json, &rows),
            "[\n{\"id\":-1,\"text\":\"a,\\\"b\\\"\\n\"},\n{\"id\":0,\"text\":null}\n]\n"
        );
        assert_eq!(
            written(Format::Ndjson, &rows),
            "{\"id\":-1,\"text\":\"a,\\\"b\\\"\\n\"}\n{\"id\":0,\"text\":null}\n"
        );
        assert_eq!(written(Format::Csv, &rows), "id,text\n-1,\"a,\"\"b\"\"\n\"\n0,\n");
        assert_eq!(written(Format::Json, &[]), "[]\n");
        assert_eq!(written(Format::Ndjson, &[]), "");
        assert_eq!(written(Format::Csv, &[]), "id,text\n");
    }

    #[test]
    fn no_spreadsheet_runs_a_cell() {
        let rows = ["=cmd()", "+1", "-1", "@x", "\tx", "\rx", "plain"].map(Some);
        let csv = written(Format::Csv, &rows);
        assert_eq!(csv, "id,text\n-1,'=cmd()\n0,'+1\n1,'-1\n2,'@x\n3,'\tx\n4,\"'\rx\"\n5,plain\n");
    }

    #[test]
    fn a_table_has_no_line_breaks_but_its_own() {
        let mut table = Columns::new(&["id", "reason"]);
        table.numbers([0]);
        table.row(["100".to_owned(), "a\nb\u{1b}[2J".to_owned()]);
        table.row(["7".to_owned(), String::new()]);
        assert_eq!(table.text(), "id   reason\n100  a\\nb\\u{1b}[2J\n  7\n".replace("id ", " id"));
    }
}
