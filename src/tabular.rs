//! A flat JSON object whose keys keep their order: how NDJSON comes in, and how any row becomes CSV cells that no spreadsheet runs.

use std::fmt;
use std::io::{self, Write};

use serde::Serialize;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

/// Keys and values in the order in which they stand; a key may come twice.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Object(pub(crate) Vec<(String, Value)>);

impl Object {
    /// The fields of a row that serialises as a struct, by their names in every output.
    pub(crate) fn of(row: &impl Serialize) -> serde_json::Result<Self> {
        serde_json::from_slice(&serde_json::to_vec(row)?)
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Object(fields))
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

/// A line of CSV, for which nothing has to be known of the lines before.
pub(crate) fn csv_line<W: Write>(out: &mut W, cells: impl Iterator<Item = impl AsRef<[u8]>>) -> io::Result<()> {
    // Its buffer holds a line with room to spare; a longer cell only makes it write in two pieces.
    let mut line = csv::WriterBuilder::new().buffer_capacity(1024).from_writer(out);
    line.write_record(cells)?;
    line.flush()
}

/// A value as a cell. A text that a spreadsheet would take for a formula gets an apostrophe before it.
pub(crate) fn csv_cell(value: Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) if text.starts_with(['=', '+', '-', '@', '\t', '\r']) => format!("'{text}"),
        Value::String(text) => text,
        other => other.to_string(),
    }
}
