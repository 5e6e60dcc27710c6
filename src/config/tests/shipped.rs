//! The files that are shipped.

use super::*;

const DEFAULT: &str = include_str!("../../../config/reprovisiond.toml");
const EXAMPLE: &str = include_str!("../../../config/example.toml");

fn tenants_of(text: &str, env: &[(&str, &str)]) -> Loaded {
    let scene = Scene::new(Some(text.as_bytes()), env);
    let directory = scene.directory.path();
    for name in ["contoso.secret", "fabrikam.secret"] {
        write_private(&directory.join(name), b"hunter2");
    }
    write_private(&directory.join("fabrikam-gov.pem"), credentials::certificate_and_key().as_bytes());
    let mut sources = scene.sources.clone();
    sources.env.insert("CREDENTIALS_DIRECTORY".into(), directory.into());
    load(&sources).map_err(|mistakes| mistakes.to_string()).expect("a good configuration")
}

#[test]
fn the_default_file_holds_every_key_with_the_built_in_default_and_its_meaning() {
    let loaded = tenants_of(&format!("{DEFAULT}\n[tenants.test]\n{IDS}{SECRET}"), &[]);
    let without_tenants = Config { tenants: BTreeMap::new(), ..loaded.config.clone() };
    assert_eq!(format!("{without_tenants:?}"), format!("{:?}", Config::default()));
    assert_eq!(loaded.warnings, []);
    for key in KEYS {
        let comment = format!("# {}.\n# {}", key.meaning, key.takes());
        assert!(DEFAULT.contains(&comment), "{}: {comment}", key.path);
        if let Kind::Setting(_) = key.kind {
            let value = loaded.effective.iter().find(|value| value.key == key.path).expect(key.path);
            assert!(matches!(value.origin, Origin::File { .. }), "{} is not in the file", key.path);
        } else {
            assert!(DEFAULT.contains(&format!("\n#{} = ", key.name())), "{}", key.path);
        }
    }
}

#[test]
fn the_default_file_as_it_is_lacks_only_a_tenant() {
    let said = check(DEFAULT, &[]);
    assert!(said.starts_with("1 mistake in the configuration:\nDIR/reprovisiond.toml: no tenant"), "{said}");
}

#[test]
fn the_tenant_in_the_default_files_comments_is_a_good_one() {
    let bare = |line: &'static str| {
        line.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| c.is_alphabetic() || c == '[')).unwrap_or(line)
    };
    // Only custom takes the URLs, and only other credentials the other files.
    let others = ["graph_url", "authority_url", "certificate_file", "federated_token_file"];
    let belongs = |line: &&str| !others.iter().any(|key| line.starts_with(key));
    let text = DEFAULT.lines().map(bare).filter(belongs).collect::<Vec<_>>().join("\n");
    assert_eq!(tenants_of(&text, &[]).config.tenants.len(), 1);
}

#[test]
fn the_example_has_two_tenants_in_two_clouds_with_two_kinds_of_credential() {
    let loaded = tenants_of(EXAMPLE, &[]);
    assert_eq!(loaded.warnings, []);
    assert_eq!(loaded.config.database.url.kind(), DatabaseKind::Postgres);
    let graphs: Vec<&str> = loaded.config.tenants.values().map(|tenant| tenant.graph_url.as_str()).collect();
    let kinds: Vec<bool> = loaded
        .config
        .tenants
        .values()
        .map(|tenant| matches!(tenant.credential, Credential::Certificate { .. }))
        .collect();
    assert_eq!(kinds, [false, true]);
    assert_eq!(graphs, ["https://graph.microsoft.com/", "https://graph.microsoft.us/"]);
}
