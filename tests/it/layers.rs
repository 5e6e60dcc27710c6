//! Imports go to lower layers only, and what a layer must not know it does not name (the table in `src/lib.rs`).

use std::path::{Path, PathBuf};

/// Which modules stand on which layer, lowest first. Modules of one layer know nothing of each other.
const LAYERS: [&[&str]; 7] = [
    &["domain"],
    &["config", "clock", "chance", "failpoint", "tabular"],
    &["metrics"],
    &["store", "graph"],
    &["engine", "ops", "simulator"],
    &["telemetry", "lifecycle"],
    &["cli"],
];

/// What a module's code does not mention at all, whatever layer it is on.
const UNMENTIONED: &[(&str, &[&str])] = &[
    // `CallId::fresh` (Uuid::now_v7) is the one thing in the domain that is not a function of its arguments.
    ("domain", &["tokio", "sqlx", "reqwest", "SystemTime::now", "Instant::now", "Utc::now", "Local::now"]),
    ("engine", &["sqlx", "reqwest", "axum", "sd_notify"]),
    ("ops", &["sqlx", "reqwest"]),
    // A mistake about Graph, or about what was asked, must not be made twice in the same code.
    ("simulator", &["crate::graph", "crate::store", "sqlx", "reqwest"]),
];

#[test]
fn no_module_mentions_what_its_layer_must_not_know() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    for module in LAYERS.concat() {
        let files = files_of(&src, module);
        assert!(!files.is_empty(), "src/{module} has no files: correct LAYERS in tests/it/layers.rs");
        for file in files {
            let name = file.strip_prefix(&src).unwrap().display();
            found.extend(mentions(module, &format!("src/{name}"), &std::fs::read_to_string(&file).unwrap()));
        }
    }
    assert!(found.is_empty(), "{} mention(s) against the layers:\n{}", found.len(), found.join("\n"));
}

#[test]
fn every_module_has_a_layer() {
    let lib = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    for line in lib.lines() {
        let declared = line.strip_prefix("pub mod ").or_else(|| line.strip_prefix("mod "));
        if let Some(module) = declared.and_then(|rest| rest.strip_suffix(';')) {
            assert!(LAYERS.concat().contains(&module), "{module} has no layer: give it one in tests/it/layers.rs");
        }
    }
}

#[test]
fn a_mention_is_named_by_file_and_line() {
    let code =
        "//! sqlx in a comment\nuse crate::domain::id; // reqwest too\nuse crate::engine::Pass;\n\nuse sqlx::Row;\n";
    let found = mentions("engine", "src/engine/x.rs", code);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("src/engine/x.rs:5: "), "{found:?}");

    let of = |module, line| mentions(module, "x.rs", line).len();
    assert_eq!(of("store", "use crate::engine::Pass;"), 1);
    assert_eq!(of("store", "use crate::graph::Token;"), 1);
    assert_eq!(of("simulator", "let x = crate::graph::f();"), 1);
    assert_eq!(of("simulator", "use crate::domain::answer;"), 0);
    assert_eq!(of("domain", "let t = std::time::Instant::now();"), 1);
    assert_eq!(of("domain", "let t = BootInstant::now();"), 0);
    assert_eq!(of("engine", "let sqlx_free = \"https://example.com/\"; sqlx::query();"), 1);
    assert_eq!(of("domain", "use crate::{store, engine};"), 1);
    assert_eq!(of("cli", "use crate::{store, engine};"), 0);
}

/// `MODULE.rs` and everything below `MODULE/`, but for unit tests: what a test uses says nothing of the module.
fn files_of(src: &Path, module: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut open = vec![src.join(format!("{module}.rs")), src.join(module)];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            let inside = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
            open.extend(inside.filter(|path| path.file_stem().is_none_or(|stem| stem != "tests")));
        } else if path.is_file() && path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn mentions(module: &str, file: &str, text: &str) -> Vec<String> {
    let layer = LAYERS.iter().position(|modules| modules.contains(&module)).unwrap();
    let strangers =
        LAYERS[layer..].concat().into_iter().filter(|other| *other != module).map(|other| format!("crate::{other}"));
    let named = UNMENTIONED.iter().filter(|(of, _)| *of == module).flat_map(|(_, names)| *names);
    let mut unmentioned: Vec<String> = strangers.chain(named.map(ToString::to_string)).collect();
    if layer + 1 < LAYERS.len() {
        // Its contents may stand lines below: below the top layer, imports from the crate are one `use` a module.
        unmentioned.push("crate::{".to_owned());
    }
    unmentioned.sort();
    unmentioned.dedup();

    let mut found = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let code = without_comment(line);
        for name in unmentioned.iter().filter(|name| mentioned(code, name)) {
            found.push(format!("{file}:{}: {module} must not mention `{name}`: {}", n + 1, line.trim()));
        }
    }
    found
}

/// A `//` inside a URL follows a colon; one that opens a comment stands first or after a space.
fn without_comment(line: &str) -> &str {
    if line.trim_start().starts_with("//") { "" } else { line.split_once(" //").map_or(line, |(code, _)| code) }
}

/// Whether `name` stands in `code` as whole identifiers.
fn mentioned(code: &str, name: &str) -> bool {
    let part_of_a_name = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(name).any(|(at, _)| {
        !code[..at].ends_with(part_of_a_name)
            && (name.ends_with('{') || !code[at + name.len()..].starts_with(part_of_a_name))
    })
}
