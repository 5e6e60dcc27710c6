//! `check-config`: says whether `run` would accept the configuration, and what is in force.

use std::io::{self, Write};

use super::{Exit, Failure};
use crate::config::{self, Loaded, Mistakes, Sources};

/// Check the configuration without starting anything.
///
/// Prints every value in force and where it comes from: a place in the file, a variable, a flag or the default.
/// Reads the files that hold secrets, prints none, and talks to neither the database nor Graph.
#[derive(Debug, Clone, clap::Args)]
#[command(before_help = "\
Examples:
  reprovisiond check-config
  reprovisiond --config /etc/reprovisiond/reprovisiond.toml check-config
  REPROVISIOND_WORKER_POLL_INTERVAL=5s reprovisiond check-config
  reprovisiond check-config --keys

Exit codes: 0 the configuration is good; 78 it has mistakes, all of which are listed")]
pub(super) struct CheckConfigArgs {
    /// Instead, list every key with its meaning, its values, its default, its variable and when a change is in force
    #[arg(long)]
    pub keys: bool,
}

/// Prints `ok` and what is in force to standard output, warnings to standard error; fails with every mistake.
pub(super) fn run(args: &CheckConfigArgs, sources: &Sources) -> Result<(), Failure> {
    if args.keys {
        return print(&mut io::stdout().lock(), &config::reference());
    }
    let loaded = config::load(sources)?;
    for warning in &loaded.warnings {
        print(&mut io::stderr().lock(), &format!("warning: {warning}\n"))?;
    }
    print(&mut io::stdout().lock(), &report(&loaded))
}

impl From<Mistakes> for Failure {
    fn from(mistakes: Mistakes) -> Self {
        Failure::new(Exit::Configuration, mistakes)
    }
}

/// `ok`, then `key = value`, aligned, with the origin of each.
fn report(loaded: &Loaded) -> String {
    let width = |text: fn(&config::Effective) -> &str| {
        loaded.effective.iter().map(|e| text(e).chars().count()).max().unwrap_or_default()
    };
    // One long URL must not push every origin off the screen.
    let (keys, values) = (width(|e| &e.key), width(|e| &e.value).min(40));
    let line = |e: &config::Effective| format!("{:keys$} = {:values$}  # {}\n", e.key, e.value, e.origin);
    std::iter::once("ok\n".to_owned()).chain(loaded.effective.iter().map(line)).collect()
}

fn print(out: &mut impl Write, text: &str) -> Result<(), Failure> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Whoever reads has seen enough: `check-config | head`.
        Err(why) if why.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome.map_err(|why| Failure::new(Exit::Failure, format!("cannot print: {why}"))),
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args, CommandFactory, Parser};

    use super::*;

    #[derive(Parser)]
    struct Outer {
        #[command(subcommand)]
        command: Command,
    }

    #[derive(clap::Subcommand)]
    enum Command {
        CheckConfig(CheckConfigArgs),
    }

    #[test]
    fn the_report_aligns_values_and_says_where_each_comes_from() {
        let directory = tempfile::tempdir().expect("a scratch directory");
        std::fs::write(directory.path().join("a.secret"), "hunter2").expect("it can be written");
        let env = [
            ("REPROVISIOND_TENANTS_A_TENANT_ID", "contoso.example".into()),
            ("REPROVISIOND_TENANTS_A_CLIENT_ID", "30d0e128-de93-41dc-89ec-33d84bb662a0".into()),
            ("REPROVISIOND_TENANTS_A_CLIENT_SECRET_FILE", directory.path().join("a.secret").into_os_string()),
        ];
        let sources = Sources {
            file: None,
            env: env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            database_flag: Some("postgres://u:hunter2@h/d".to_owned()),
        };
        let mut loaded = config::load(&sources).expect("a good configuration");
        // Before it is aligned: the width must not hang on the length of the scratch directory's path.
        for effective in &mut loaded.effective {
            effective.value = effective.value.replace(&*directory.path().to_string_lossy(), "DIR");
        }
        let report = report(&loaded);
        assert!(!report.contains("hunter2"), "{report}");
        insta::assert_snapshot!(report, @"
        ok
        database.url                 = postgres://u:***@h/d                  # --database
        database.patience            = 30s                                   # default
        worker.poll_interval         = 30s                                   # default
        worker.max_calls_in_flight   = 4                                     # default
        worker.drain_timeout         = 60s                                   # default
        worker.lease                 = 60s                                   # default
        worker.send_within           = 10s                                   # default
        batch.max_devices            = 100                                   # default
        batch.linger                 = 0s                                    # default
        graph.action                 = bulk-reprovision-cloud-pc             # default
        graph.call_timeout           = 60s                                   # default
        graph.cloud_pcs_max_age      = 10m                                   # default
        retry.first_delay            = 2s                                    # default
        retry.longest_delay          = 5m                                    # default
        retry.multiplier             = 2.0                                   # default
        retry.max_attempts           = 3                                     # default
        retry.failed                 = false                                 # default
        retry.blocked_probe_interval = 15m                                   # default
        reconcile.unknown_policy     = read-back                             # default
        reconcile.first_after        = 1m                                    # default
        reconcile.settle_after       = 15m                                   # default
        reconcile.give_up_after      = 2h                                    # default
        reconcile.clock_margin       = 2m                                    # default
        completion.track             = false                                 # default
        completion.first_after       = 5m                                    # default
        completion.shortest_delay    = 5m                                    # default
        completion.longest_delay     = 1h                                    # default
        completion.give_up_after     = 24h                                   # default
        completion.reads_per_period  = 300                                   # default
        completion.period            = 1m                                    # default
        limits.open_doubts           = 2                                     # default
        limits.calls_per_period      = 100                                   # default
        limits.period                = 20s                                   # default
        ops.listen                   =                                       # default
        tenants.a.cloud              = global                                # default
        tenants.a.graph_url          = https://graph.microsoft.com/          # default
        tenants.a.authority_url      = https://login.microsoftonline.com/    # default
        tenants.a.tenant_id          = contoso.example                       # REPROVISIOND_TENANTS_A_TENANT_ID
        tenants.a.client_id          = 30d0e128-de93-41dc-89ec-33d84bb662a0  # REPROVISIOND_TENANTS_A_CLIENT_ID
        tenants.a.credential         = client-secret                         # default
        tenants.a.client_secret_file = DIR/a.secret                          # REPROVISIOND_TENANTS_A_CLIENT_SECRET_FILE
        ");
    }

    #[test]
    fn mistakes_end_with_the_exit_code_of_a_configuration() {
        let failure = run(&CheckConfigArgs { keys: false }, &Sources::default()).expect_err("no tenant");
        assert_eq!(failure.exit, Exit::Configuration);
        assert!(failure.message.contains("no tenant is configured"), "{}", failure.message);
    }

    #[test]
    fn the_help_begins_with_examples() {
        let mut outer = Outer::command();
        let help = outer.find_subcommand_mut("check-config").expect("it is there").render_help().to_string();
        assert!(help.starts_with("Examples:\n  reprovisiond check-config"), "{help}");
        let augmented = CheckConfigArgs::augment_args(clap::Command::new("check-config"));
        augmented.debug_assert();
    }

    #[test]
    fn the_list_of_keys_holds_meaning_values_default_and_variable() {
        let reference = config::reference();
        insta::assert_snapshot!(reference.split("\n\n").nth(3).unwrap_or_default(), @"
        worker.max_calls_in_flight
          Calls to Graph under way at once in this process, for each tenant.
          takes:    a whole number from 1 to 64
          default:  4
          variable: REPROVISIOND_WORKER_MAX_CALLS_IN_FLIGHT
          changes:  on reload (SIGHUP)
        ");
        insta::assert_snapshot!(reference.split("\n\n").last().unwrap_or_default(), @"
        tenants.NAME.open_doubts
          This tenant's own, in place of limits.open_doubts.
          takes:    a whole number from 1 to 100
          default:  none
          variable: REPROVISIOND_TENANTS_NAME_OPEN_DOUBTS
          changes:  on reload, for a tenant that is served
        ");
    }
}
