//! The query options that a list takes, and its pages. What is not simulated is refused: an option that Graph would have
//! heeded and that is ignored here would hide a mistake.

use serde_json::{Map, Value, json};
use url::form_urlencoded::{byte_serialize, parse};

use super::Shared;
use super::answer::{Answer, Call};
use super::faults::Effect;
use super::route::Received;
use super::verdict::Verdict;

/// What a list is.
pub(super) struct List {
    /// The path below the version.
    pub(super) path: &'static str,
    /// The type of its items, in error messages.
    pub(super) type_name: &'static str,
    /// What `$select` may name.
    pub(super) properties: &'static [&'static str],
    /// What `$filter` may compare with `eq`.
    pub(super) filters: &'static [&'static str],
    /// What `$orderby` may name.
    pub(super) orders: &'static [&'static str],
}

/// The options of one request.
#[derive(Debug, Default)]
pub(super) struct Options {
    select: Option<Vec<String>>,
    /// A property and what it must be equal to.
    pub(super) filter: Option<(&'static str, String)>,
    /// A property, and whether the greatest comes first.
    order: Option<(&'static str, bool)>,
    top: Option<usize>,
    count: bool,
    skip: usize,
    /// Those that a next link repeats.
    repeated: Vec<(String, String)>,
}

/// What goes before the offset in a `$skiptoken`, which to a client is opaque.
const SKIP_TOKEN: &str = "RFNwdAIAAQ";

impl List {
    pub(super) fn options(&self, query: &str) -> Result<Options, String> {
        let mut options = Options::default();
        for (name, value) in parse(query.as_bytes()).into_owned() {
            match name.as_str() {
                "$select" => options.select = Some(self.selected(&value)?),
                "$filter" => options.filter = Some(self.filter(&value)?),
                "$orderby" => options.order = Some(self.order(&value)?),
                "$top" => {
                    let top = value.parse().ok().filter(|top| (1..=999).contains(top));
                    let wrong = || format!("Invalid value '{value}' for $top query option found: 1 to 999.");
                    options.top = Some(top.ok_or_else(wrong)?);
                }
                "$count" => match value.as_str() {
                    "true" => options.count = true,
                    "false" => {}
                    _ => return Err(format!("Invalid value '{value}' for $count query option found.")),
                },
                "$skiptoken" => {
                    let offset = value.strip_prefix(SKIP_TOKEN).and_then(|offset| offset.parse().ok());
                    options.skip = offset.ok_or_else(|| "Skip token is not valid.".to_owned())?;
                    continue;
                }
                _ => return Err(format!("The query option '{name}' is not supported.")),
            }
            options.repeated.push((name, value));
        }
        Ok(options)
    }

    fn property(&self, name: &str, among: &'static [&'static str]) -> Result<&'static str, String> {
        if let Some(name) = among.iter().find(|known| **known == name) {
            return Ok(name);
        }
        Err(if self.properties.contains(&name) {
            format!("The property '{name}' cannot be used in this query option.")
        } else {
            format!("Could not find a property named '{name}' on type '{}'.", self.type_name)
        })
    }

    fn selected(&self, value: &str) -> Result<Vec<String>, String> {
        let names = value.split(',').map(str::trim);
        names.map(|name| self.property(name, self.properties).map(str::to_owned)).collect()
    }

    /// `name eq 'text'`, in which a quotation mark is written twice.
    fn filter(&self, value: &str) -> Result<(&'static str, String), String> {
        let wrong = || format!("Invalid filter clause: {value}");
        let (name, text) = value.trim().split_once(" eq ").ok_or_else(wrong)?;
        let quoted = text.trim().strip_prefix('\'').and_then(|text| text.strip_suffix('\'')).ok_or_else(wrong)?;
        let bare = quoted.replace("''", "");
        if bare.contains('\'') {
            return Err(wrong());
        }
        Ok((self.property(name.trim(), self.filters)?, quoted.replace("''", "'")))
    }

    fn order(&self, value: &str) -> Result<(&'static str, bool), String> {
        let (name, direction) = value.trim().split_once(' ').unwrap_or((value.trim(), "asc"));
        let descending = match direction.trim() {
            "asc" => false,
            "desc" => true,
            _ => return Err(format!("Syntax error in '{value}'.")),
        };
        Ok((self.property(name, self.orders)?, descending))
    }

    /// One page of these items.
    pub(super) fn page(
        &self,
        sim: &Shared,
        received: &Received<'_>,
        options: &Options,
        mut items: Vec<Map<String, Value>>,
        verdict: &Verdict,
    ) -> Answer {
        if let Some((by, descending)) = options.order {
            items.sort_by_key(|item| item.get(by).map(ToString::to_string));
            if descending {
                items.reverse();
            }
        }
        let version = received.target.version();
        let size = options.top.unwrap_or(usize::MAX).min(sim.page_size);
        let (total, end) = (items.len(), options.skip.saturating_add(size));
        let page: Vec<Value> =
            items.into_iter().skip(options.skip).take(size).map(|item| Value::Object(options.shown(item))).collect();
        let shown = options.select.as_ref().map(|names| format!("({})", names.join(","))).unwrap_or_default();
        let mut body = Map::new();
        body.insert("@odata.context".to_owned(), context(sim, version, &format!("{}{shown}", self.path)));
        if options.count {
            body.insert("@odata.count".to_owned(), json!(total));
        }
        if end < total {
            let token = format!("{SKIP_TOKEN}{end}");
            let all = options.repeated.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            let query: Vec<String> = all
                .chain([("$skiptoken", token.as_str())])
                .map(|(name, value)| format!("{name}={}", byte_serialize(value.as_bytes()).collect::<String>()))
                .collect();
            let link = format!("{}/{version}/{}?{}", sim.base_url, self.path, query.join("&"));
            body.insert("@odata.nextLink".to_owned(), json!(link));
        }
        match verdict.effect {
            Some(Effect::MissingLists) => {}
            Some(Effect::NullLists) => drop(body.insert("value".to_owned(), Value::Null)),
            _ => drop(body.insert("value".to_owned(), Value::Array(page))),
        }
        Answer::json(200, Value::Object(body))
    }

    /// One item by its key.
    pub(super) fn entity(
        &self,
        sim: &Shared,
        received: &Received<'_>,
        options: &Options,
        item: Map<String, Value>,
    ) -> Value {
        let context = context(sim, received.target.version(), &format!("{}/$entity", self.path));
        let context = std::iter::once(("@odata.context".to_owned(), context));
        Value::Object(context.chain(options.shown(item)).collect())
    }
}

impl Options {
    fn shown(&self, item: Map<String, Value>) -> Map<String, Value> {
        let Some(names) = &self.select else { return item };
        item.into_iter().filter(|(name, _)| name.starts_with('@') || names.contains(name)).collect()
    }
}

fn context(sim: &Shared, version: &str, of: &str) -> Value {
    json!(format!("{}/{version}/$metadata#{of}", sim.base_url))
}

/// The refusal of a query that cannot be answered.
pub(super) fn refuse(call: &Call, message: &str) -> Answer {
    Answer::graph_error(call, 400, "BadRequest", message)
}
