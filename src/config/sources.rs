//! What a configuration is made from, as plain data: loading is a function of it and of the files it names.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The prefix of every variable that belongs to the daemon.
pub(super) const PREFIX: &str = "REPROVISIOND_";
/// Where systemd puts the files of `LoadCredential=`; a directory.
pub(super) const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";
/// What Azure's workload identity webhook sets in a pod.
pub(super) const WEBHOOK: [&str; 3] = ["AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE"];
/// Names the configuration file when no flag does.
const CONFIG_VARIABLE: &str = "REPROVISIOND_CONFIG";
/// Variables with the prefix that are no configuration keys.
pub(super) const NOT_KEYS: [&str; 2] = [CONFIG_VARIABLE, "REPROVISIOND_LOG"];
/// Looked for in this order when neither flag nor variable names a file.
const USUAL_PLACES: [&str; 2] = ["reprovisiond.toml", "/etc/reprovisiond/reprovisiond.toml"];

/// The layers, lowest first. Has no `Debug`: a variable or flag may hold a password.
#[derive(Clone, Default)]
pub struct Sources {
    /// The configuration file; `None` if there is none.
    pub file: Option<PathBuf>,
    /// The environment. Names other than `REPROVISIOND_*`, `CREDENTIALS_DIRECTORY` and the three that Azure's workload identity
    /// webhook sets are not looked at.
    pub env: BTreeMap<String, OsString>,
    /// The value of `--database`, which wins over everything.
    pub database_flag: Option<String>,
}

impl Sources {
    /// The sources of this process: the file named by the flag, else by `REPROVISIOND_CONFIG`, else
    /// `./reprovisiond.toml`, else `/etc/reprovisiond/reprovisiond.toml`, else none; and the environment.
    pub fn from_process(config: Option<PathBuf>, database: Option<String>) -> Self {
        let env: BTreeMap<String, OsString> = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value))
            .filter(|(name, _)| {
                name.starts_with(PREFIX) || name == CREDENTIALS_DIRECTORY || WEBHOOK.contains(&name.as_str())
            })
            .collect();
        let file = choose_file(config, &env, Path::exists);
        Self { file, env, database_flag: database }
    }
}

/// A file that was named is taken whether or not it exists: a wrong name must be a mistake, not silence.
fn choose_file(
    flag: Option<PathBuf>,
    env: &BTreeMap<String, OsString>,
    exists: impl Fn(&Path) -> bool,
) -> Option<PathBuf> {
    flag.or_else(|| env.get(CONFIG_VARIABLE).map(PathBuf::from))
        .or_else(|| USUAL_PLACES.iter().map(PathBuf::from).find(|path| exists(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_file_wins_over_the_usual_places_even_if_it_is_missing() {
        let check = |flag: Option<&str>, variable: Option<&str>, existing: &[&str], expected: Option<&str>| {
            let env = variable.map(|v| (CONFIG_VARIABLE.to_owned(), OsString::from(v))).into_iter().collect();
            let chosen = choose_file(flag.map(PathBuf::from), &env, |p| existing.iter().any(|e| p == Path::new(e)));
            assert_eq!(chosen, expected.map(PathBuf::from));
        };
        let both = USUAL_PLACES;
        check(Some("a"), Some("b"), &both, Some("a"));
        check(None, Some("b"), &both, Some("b"));
        check(None, None, &both, Some("reprovisiond.toml"));
        check(None, None, &both[1..], Some("/etc/reprovisiond/reprovisiond.toml"));
        check(None, None, &[], None);
    }
}
