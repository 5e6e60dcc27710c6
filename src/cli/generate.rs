//! `generate`: what a package installs beside the program, from the same definitions as `--help` and `check-config --keys`.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Command, ValueEnum};
use clap_complete::Shell;
use clap_mangen::Man;

use super::{Exit, Failure};
use crate::config;

/// Write man pages or shell completions, for packages
#[derive(Debug, Args)]
#[command(
    hide = true,
    before_help = "Examples:
  reprovisiond generate man --to target/generated/man
  reprovisiond generate completions --to target/generated/completions"
)]
pub(super) struct GenerateArgs {
    /// What is written
    what: What,
    /// Directory to write into; made if it is not there
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum What {
    /// reprovisiond.1, one page a command, and reprovisiond.toml.5
    Man,
    /// For bash, zsh and fish, by the names under which each looks for them
    Completions,
}

pub(super) fn run(args: &GenerateArgs, mut program: Command) -> Result<(), Failure> {
    let written = std::fs::create_dir_all(&args.to).and_then(|()| match args.what {
        What::Man => man(program, &args.to),
        What::Completions => completions(&mut program, &args.to),
    });
    written.map_err(|error| Failure::new(Exit::Failure, format!("{}: {error}", args.to.display())))
}

fn completions(program: &mut Command, to: &Path) -> io::Result<()> {
    for (shell, file) in
        [(Shell::Bash, "reprovisiond"), (Shell::Zsh, "_reprovisiond"), (Shell::Fish, "reprovisiond.fish")]
    {
        let mut script = Vec::new();
        clap_complete::generate(shell, program, "reprovisiond", &mut script);
        std::fs::write(to.join(file), script)?;
    }
    Ok(())
}

fn man(mut program: Command, to: &Path) -> io::Result<()> {
    program.build();
    let commands: Vec<Command> = program.get_subcommands().filter(|command| !command.is_hide_set()).cloned().collect();
    for command in commands {
        let name = format!("reprovisiond-{}", command.get_name());
        std::fs::write(to.join(format!("{name}.1")), page(command, &name)?)?;
    }
    std::fs::write(to.join("reprovisiond.1"), page(program, "reprovisiond")?)?;
    std::fs::write(to.join("reprovisiond.toml.5"), configuration())
}

/// The sections that clap_mangen knows, and the examples, which stand before the help and which it leaves out.
fn page(command: Command, name: &str) -> io::Result<Vec<u8>> {
    let before = command.get_before_help().map(ToString::to_string).unwrap_or_default();
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let has_commands = command.has_subcommands();
    let page = Man::new(command).title(name.to_uppercase()).source(SOURCE).manual(MANUAL);
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    if has_commands {
        page.render_subcommands_section(&mut text)?;
    }
    let mut rest = String::new();
    let (examples, notes) = before.split_once("\n\n").unwrap_or((&before, ""));
    if let Some(examples) = examples.strip_prefix("Examples:\n") {
        let _ = writeln!(rest, ".SH EXAMPLES\n.nf\n{}.fi", lines(examples));
    }
    let notes: Vec<&str> = notes.split("\n\n").chain(after.split('\n')).filter(|note| !note.is_empty()).collect();
    if !notes.is_empty() {
        rest.push_str(".SH NOTES\n");
        rest.push_str(&notes.into_iter().map(lines).collect::<Vec<_>>().join(".PP\n"));
    }
    rest.push_str(".SH SEE ALSO\n");
    rest.push_str(if has_commands { "" } else { ".BR reprovisiond (1),\n" });
    rest.push_str(".BR reprovisiond.toml (5)\n");
    text.extend_from_slice(rest.as_bytes());
    Ok(text)
}

const SOURCE: &str = concat!("reprovisiond ", env!("CARGO_PKG_VERSION"));
const MANUAL: &str = "reprovisiond";

/// The file's page, from the one table of keys.
fn configuration() -> String {
    let mut page = format!(".TH REPROVISIOND.TOML 5 \"\" \"{SOURCE}\" \"{MANUAL}\"\n");
    page.push_str(
        ".SH NAME\nreprovisiond.toml \\- configuration of reprovisiond\n\
         .SH DESCRIPTION\nA TOML file. A variable\n.BI REPROVISIOND_ SECTION _ KEY\ncomes before it, and a flag before both.\n\
         .B reprovisiond check\\-config\nsays what is in force and lists all mistakes at once. Without\n.B \\-\\-config\n\
         and\n.B REPROVISIOND_CONFIG\nthe file is ./reprovisiond.toml or /etc/reprovisiond/reprovisiond.toml.\n.SH KEYS\n",
    );
    for key in config::described_keys() {
        let (path, meaning) = (escaped(key.path), escaped(key.meaning));
        let (takes, default) = (escaped(&key.takes), escaped(key.default.unwrap_or("none")));
        let _ = writeln!(
            page,
            ".TP\n.B {path}\n{meaning}.\n.br\nTakes {takes}.\n.br\nDefault: {default}. Variable: {}.",
            escaped(&key.variable)
        );
    }
    page.push_str(".SH SEE ALSO\n.BR reprovisiond (1),\n.BR reprovisiond\\-check\\-config (1)\n");
    page
}

/// Each line as roff text.
fn lines(text: &str) -> String {
    text.lines().flat_map(|line| [escaped(line), "\n".to_owned()]).collect()
}

/// Text that roff takes for nothing else: a hyphen stays one, and no line begins with a request.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}
