//! What packages install beside the program is there, and well formed.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use super::program::plain;

fn generated(what: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let said = plain(&["generate", what, "--to", dir.path().to_str().unwrap()]);
    assert_eq!(said.code, 0, "{said}");
    dir
}

fn names(dir: &Path) -> BTreeSet<String> {
    dir.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The commands that the help lists.
fn commands() -> Vec<String> {
    let help = plain(&["--help"]).stdout;
    let listed = help.split_once("Commands:\n").unwrap().1.split_once("\n\n").unwrap().0.to_owned();
    let named = listed.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let commands: Vec<String> = named.map(|line| line.split_whitespace().next().unwrap().to_owned()).collect();
    assert!(commands.len() > 10 && !commands.iter().any(|command| command == "generate"), "{help}");
    commands
}

#[test]
fn every_command_has_a_man_page_with_its_examples_and_the_configuration_one_with_every_key() {
    let dir = generated("man");
    let mut expected: BTreeSet<String> = commands().iter().map(|command| format!("reprovisiond-{command}.1")).collect();
    expected.extend(["reprovisiond.1".to_owned(), "reprovisiond.toml.5".to_owned()]);
    assert_eq!(names(dir.path()), expected);
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    for page in expected.iter().filter(|page| page.ends_with(".1")) {
        assert!(read(page).contains("\n.SH EXAMPLES\n.nf\n"), "{page}:\n{}", read(page));
    }
    let keys = plain(&["check-config", "--keys"]).stdout;
    let variables = keys.lines().filter_map(|line| line.strip_prefix("  variable: "));
    let page = read("reprovisiond.toml.5");
    for variable in variables {
        assert!(page.contains(&format!("Variable: {variable}.\n")), "{variable}:\n{page}");
    }
}

#[test]
fn roff_has_nothing_to_say_against_the_man_pages() {
    let dir = generated("man");
    for page in names(dir.path()) {
        let mut groff = Command::new("groff");
        groff.args(["-man", "-Tutf8", "-Kutf8", "-ww", "-z"]).arg(dir.path().join(&page));
        let output = groff.output().expect("groff (tests/prerequisites installs it)");
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && complaints.is_empty(), "{page}: {complaints}");
    }
}

#[test]
fn completions_know_every_command_and_bash_can_read_them() {
    let dir = generated("completions");
    let expected = ["reprovisiond", "_reprovisiond", "reprovisiond.fish"].map(str::to_owned);
    assert_eq!(names(dir.path()), expected.iter().cloned().collect());
    for file in expected {
        let script = std::fs::read_to_string(dir.path().join(&file)).unwrap();
        for command in commands() {
            assert!(script.contains(&command), "{file} does not know {command}");
        }
    }
    let bash = "source \"$1/reprovisiond\"; COMP_WORDS=(reprovisiond che); COMP_CWORD=1; \
                _reprovisiond reprovisiond che reprovisiond; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let output = Command::new("bash").args(["--norc", "-c", bash, "bash"]).arg(dir.path()).output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "check\ncheck-config\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
