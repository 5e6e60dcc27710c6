//! The examples in a Markdown page: its fenced blocks, in order.
//!
//! The first word of a fence is the language. `sql`, `sh` and `python` are run; further words say how:
//!
//! | word | |
//! |---|---|
//! | `postgres`, `sqlite` | on this database only; else on both |
//! | `refused` | each statement (`sql`) fails, and says what the same line of its output says |
//! | `producer`, `operator`, `auditor`, `migrator` | the Postgres role, where it is not the page's own |
//!
//! `text` is what the block before it prints, on both databases or on the one named; `…` in it stands for anything. Where two
//! blocks stand together, one for each database, it is what both print. A block in any language is not run where the line before
//! it says so.

use crate::support::Backend;

/// What stands in the line before a block that is not run.
pub(super) const NOT_RUN: &str = "Not run by the project's tests";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    Sql,
    Sh,
    Python,
}

/// An example, and what it prints.
#[derive(Debug)]
pub(super) struct Block {
    /// `FILE:LINE` of its first line.
    pub(super) place: String,
    pub(super) language: Language,
    only: Option<Backend>,
    pub(super) refused: bool,
    pub(super) role: Option<String>,
    pub(super) body: String,
    expected: Vec<(Option<Backend>, String)>,
}

impl Block {
    pub(super) fn is_for(&self, backend: Backend) -> bool {
        self.only.is_none_or(|only| only == backend)
    }

    /// What it prints on this database: nothing, unless the page says so.
    pub(super) fn expected(&self, backend: Backend) -> &str {
        let of = |only: &Option<Backend>| only.is_none_or(|only| only == backend);
        self.expected.iter().find(|(only, _)| of(only)).map_or("", |(_, text)| text)
    }
}

/// The examples of a page, or each mistake in how they are marked.
pub(super) fn blocks(file: &str, markdown: &str) -> Result<Vec<Block>, Vec<String>> {
    let (mut blocks, mut mistakes) = (Vec::new(), Vec::new());
    let mut lines = markdown.lines().enumerate();
    // The last line that is not blank.
    let mut before = "";
    while let Some((n, line)) = lines.next() {
        let place = format!("{file}:{}", n + 1);
        if let Some(info) = line.strip_prefix("```") {
            let body = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```");
            let body: String = body.flat_map(|line| [line, "\n"]).collect();
            if let Err(mistake) = take(&mut blocks, place.clone(), info, body, before) {
                mistakes.push(format!("{place}: {mistake}"));
            }
        } else if line.trim_start().starts_with("```") || line.starts_with("~~~") || line.starts_with("    ") {
            mistakes.push(format!("{place}: an example stands between ``` at the left margin, or no test finds it"));
        }
        if !line.is_empty() {
            before = line;
        }
    }
    if mistakes.is_empty() { Ok(blocks) } else { Err(mistakes) }
}

fn take(blocks: &mut Vec<Block>, place: String, info: &str, body: String, before: &str) -> Result<(), String> {
    if before.contains(NOT_RUN) {
        return Ok(());
    }
    let mut words = info.split(' ');
    let language = match words.next().unwrap_or_default() {
        "sql" => Language::Sql,
        "sh" => Language::Sh,
        "python" => Language::Python,
        "text" => {
            let only = words.next().map(database).transpose()?;
            let last = blocks.last_mut().ok_or("this text belongs to no example: put it after one that is run")?;
            last.expected.push((only, body.clone()));
            let (of, language) = (last.only, last.language);
            if let Some(other) = blocks.iter_mut().rev().nth(1)
                && other.expected.is_empty()
                && other.language == language
                && let (Some(this), Some(that)) = (of, other.only)
                && this != that
            {
                other.expected.push((only, body));
            }
            return Ok(());
        }
        other => {
            return Err(format!(
                "{other:?} is not run, as sql, sh, python and text are: write \"{NOT_RUN}\" in the line before it"
            ));
        }
    };
    let mut block = Block { place, language, only: None, refused: false, role: None, body, expected: Vec::new() };
    for word in words {
        match word {
            "refused" if language == Language::Sql => block.refused = true,
            "producer" | "operator" | "auditor" | "migrator" => block.role = Some(word.to_owned()),
            word => block.only = Some(database(word)?),
        }
    }
    blocks.push(block);
    Ok(())
}

fn database(word: &str) -> Result<Backend, String> {
    match word {
        "postgres" => Ok(Backend::Postgres),
        "sqlite" => Ok(Backend::Sqlite),
        other => Err(format!("{other:?} says nothing of an example: see tests/it/docs/page.rs for the words")),
    }
}

/// What is wrong with what a client printed, as a sentence. Columns may be padded, and `psql`'s rule is not compared.
pub(super) fn compare(expected: &str, printed: &str) -> Result<(), String> {
    let (want, got) = (rows(expected), rows(printed));
    if want.len() == got.len() && want.iter().zip(&got).all(|(want, got)| matches(want, got)) {
        return Ok(());
    }
    Err(format!("the page says\n{}\nand it printed\n{}", want.join("\n"), got.join("\n")))
}

/// The lines of an output, with one blank around `|`.
fn rows(text: &str) -> Vec<String> {
    let rule = |line: &str| line.starts_with("--") && line.chars().all(|c| c == '-' || c == '+');
    let rows = text.trim_end().lines().filter(|line| !rule(line));
    rows.map(|line| line.split('|').map(str::trim).collect::<Vec<_>>().join(" | ").trim().to_owned()).collect()
}

/// Whether the whole text is as the pattern says, in which `…` stands for anything.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('…');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

#[test]
fn a_block_has_its_place_its_words_and_what_it_prints_on_each_database() {
    let page = "Text\n\n```sql postgres auditor\nSELECT 1;\n```\n\n```sh\nls\n```\nprints\n```text sqlite\na\n```\n\n```text\nb\n```\n";
    let blocks = blocks("x.md", page).unwrap();
    assert_eq!(blocks.iter().map(|block| block.place.as_str()).collect::<Vec<_>>(), ["x.md:3", "x.md:7"]);
    assert_eq!((blocks[0].role.as_deref(), blocks[0].is_for(Backend::Sqlite)), (Some("auditor"), false));
    assert_eq!((blocks[1].expected(Backend::Sqlite), blocks[1].expected(Backend::Postgres)), ("a\n", "b\n"));
}

#[test]
fn what_two_blocks_print_stands_once() {
    let page = "```sh postgres\nls\n```\n```sh sqlite\nls\n```\n```text\na\n```\n";
    let blocks = blocks("x.md", page).unwrap();
    assert_eq!((blocks[0].expected(Backend::Postgres), blocks[1].expected(Backend::Sqlite)), ("a\n", "a\n"));
}

#[test]
fn no_example_escapes() {
    for (page, sentence) in [
        ("```\nls\n```\n", "x.md:1: \"\" is not run"),
        ("\n```rust\n```\n", "x.md:2: \"rust\" is not run"),
        ("```sql oracle\n```\n", "\"oracle\" says nothing"),
        ("```sh refused\n```\n", "\"refused\" says nothing"),
        ("```text\n```\n", "belongs to no example"),
        ("```csharp\n```\n", "write \"Not run"),
        ("- a\n  ```sh\n  ```\n", "at the left margin"),
        ("~~~sh\n~~~\n", "at the left margin"),
        ("\n    ls\n", "at the left margin"),
    ] {
        let mistakes = blocks("x.md", page).unwrap_err().join("\n");
        assert!(mistakes.contains(sentence), "{page:?}: {mistakes}");
    }
    assert!(blocks("x.md", &format!("{NOT_RUN}:\n\n```csharp\nx\n```\n")).unwrap().is_empty());
}

#[test]
fn what_is_printed_is_compared_row_by_row() {
    assert!(compare("a  | b\n2… | x\n", " a | b \n---+---\n 2026 | x\n").is_ok());
    for (expected, printed) in [("a\n1\n", "a\n2\n"), ("a\n", "a\n1\n"), ("a\n1…\n", "a\n21\n"), ("", "a\n")] {
        assert!(compare(expected, printed).is_err(), "{expected:?} {printed:?}");
    }
    assert!(matches("a…c…e", "abcde") && matches("…", "") && !matches("a…b…a", "ab") && !matches("a", "ab"));
}
