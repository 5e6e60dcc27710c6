//! Secrets, and text from outside, in what is said.

use super::*;

#[test]
fn a_secrets_file_must_be_there_and_hold_something() {
    let scene = Scene::new(Some(format!("[tenants.a]\n{IDS}client_secret_file = \"b.secret\"\n").as_bytes()), &[]);
    let path = scene.directory.path().join("b.secret");
    assert_snapshot!(scene.outcome(), @"
    1 mistake in the configuration:
    DIR/reprovisiond.toml:4:22: tenants.a.client_secret_file: DIR/b.secret: does not exist
      write the secret to that file, readable by the daemon's user alone
    ");
    write_private(&path, b" \n");
    assert_snapshot!(scene.outcome(), @"
    1 mistake in the configuration:
    DIR/reprovisiond.toml:4:22: tenants.a.client_secret_file: DIR/b.secret: is empty
      write the secret to that file, readable by the daemon's user alone
    ");
    write_private(&path, &b"x".repeat(20_000));
    assert_snapshot!(scene.outcome(), @"
    1 mistake in the configuration:
    DIR/reprovisiond.toml:4:22: tenants.a.client_secret_file: DIR/b.secret: is longer than 16384 bytes, which no client secret is
      write the secret to that file, readable by the daemon's user alone
    ");
    std::fs::remove_file(&path).expect("it is there");
    std::fs::create_dir(&path).expect("nothing is there");
    assert_snapshot!(scene.outcome(), @"
    1 mistake in the configuration:
    DIR/reprovisiond.toml:4:22: tenants.a.client_secret_file: DIR/b.secret: is not a file
      write the secret to that file, readable by the daemon's user alone
    ");
}

#[test]
fn a_secret_that_others_can_read_is_a_warning() {
    let scene = Scene::new(Some(format!("[tenants.a]\n{IDS}{SECRET}").as_bytes()), &[]);
    assert_snapshot!(scene.outcome(), @"
    ok
    tenants.a.tenant_id = contoso.example  (DIR/reprovisiond.toml:2:13)
    tenants.a.client_id = 30d0e128-de93-41dc-89ec-33d84bb662a0  (DIR/reprovisiond.toml:3:13)
    tenants.a.client_secret_file = DIR/a.secret  (DIR/reprovisiond.toml:4:22)
    ");
    set_mode(&scene.directory.path().join("a.secret"), 0o644);
    assert_snapshot!(scene.outcome(), @"
    ok
    warning: DIR/reprovisiond.toml:4:22: tenants.a.client_secret_file: DIR/a.secret can be read or changed by every user of this host
      take that away: chmod o-rwx FILE
    tenants.a.tenant_id = contoso.example  (DIR/reprovisiond.toml:2:13)
    tenants.a.client_id = 30d0e128-de93-41dc-89ec-33d84bb662a0  (DIR/reprovisiond.toml:3:13)
    tenants.a.client_secret_file = DIR/a.secret  (DIR/reprovisiond.toml:4:22)
    ");
}

#[test]
fn systemd_credentials_are_found_by_their_directory() {
    for written in ["$CREDENTIALS_DIRECTORY/a.secret", "${CREDENTIALS_DIRECTORY}/a.secret"] {
        let mut scene =
            Scene::new(Some(format!("[tenants.a]\n{IDS}client_secret_file = \"{written}\"\n").as_bytes()), &[]);
        let elsewhere = tempfile::tempdir().expect("a scratch directory");
        write_private(&elsewhere.path().join("a.secret"), b"hunter2");
        scene.sources.env.insert("CREDENTIALS_DIRECTORY".into(), elsewhere.path().into());
        let loaded = load(&scene.sources).expect(written);
        let tenant = &loaded.config.tenants[&"a".parse().expect("a name")];
        let Credential::ClientSecret { file, .. } = &tenant.credential else { panic!("{tenant:?}") };
        assert_eq!(*file, elsewhere.path().join("a.secret"));
    }
    assert_snapshot!(check(&format!("[tenants.a]\n{IDS}client_secret_file = \"$CREDENTIALS_DIRECTORY/a\"\n"), &[]), @"
    1 mistake in the configuration:
    DIR/reprovisiond.toml:4:22: tenants.a.client_secret_file: $CREDENTIALS_DIRECTORY is not set
      start the daemon by a systemd unit with LoadCredential=, or write a path
    ");
    assert_snapshot!(check(&format!("[tenants.a]\n{IDS}client_secret_file = \"$HOME/a\"\n"), &[]), @"
    1 mistake in the configuration:
    DIR/reprovisiond.toml:4:22: tenants.a.client_secret_file: only a leading $CREDENTIALS_DIRECTORY/ is replaced, no other variable
      write the path itself
    ");
}

#[test]
fn a_secret_is_not_shown_wherever_it_is_pasted() {
    let secret = "abC8Q~aBcDeFgHiJkLmNoPqRsTuVwXyZ01234567";
    for toml in [
        format!("client_secret = \"{secret}\""),
        format!("client_secret_file = \"{secret}\""),
        format!("client_id = \"{secret}\""),
        format!("tenant_id = \"{secret}\""),
        format!("cloud = \"{secret}\""),
        format!("graph_url = \"https://u:{secret}@h\""),
        format!("client_secret = {secret}"),
        format!("client_secret: {secret}"),
        secret.to_owned(),
        format!("password = \"{secret}\n"),
        format!("\"{secret}\" = 1"),
    ] {
        let said = check(&format!("[tenants.a]\n{toml}\n"), &[]);
        assert!(!said.contains(secret) && !said.contains(&secret[6..]), "{toml}\n{said}");
        assert!(said.contains("reprovisiond.toml:2:"), "{toml}\n{said}");
    }
}

#[test]
fn a_password_in_the_database_url_is_not_shown_and_not_left_lying_about() {
    let tenant = format!("[database]\nurl = \"postgres://u:hunter2@h/d\"\n[tenants.a]\n{IDS}{SECRET}");
    let mut scene = Scene::new(Some(tenant.as_bytes()), &[]);
    set_mode(&scene.directory.path().join("reprovisiond.toml"), 0o644);
    let said = scene.outcome();
    assert_snapshot!(said.lines().take(4).collect::<Vec<_>>().join("\n"), @"
    ok
    warning: DIR/reprovisiond.toml:2:7: database.url holds a password, and every user of this host can get at this file
      leave the password out and name a file that holds it: PGPASSFILE
    database.url = postgres://u:***@h/d  (DIR/reprovisiond.toml:2:7)
    ");
    scene.sources.database_flag = Some("postgres://v:hunter2@h/d".to_owned());
    let said = scene.outcome();
    assert_snapshot!(said.lines().take(4).collect::<Vec<_>>().join("\n"), @"
    ok
    warning: --database: the URL's password can be seen in the list of processes
      leave the password out and name a file that holds it: PGPASSFILE
    database.url = postgres://v:***@h/d  (--database)
    ");
    let loaded = load(&scene.sources).expect("warnings only");
    assert!(!format!("{loaded:?}").contains("hunter2"));
    assert_eq!(loaded.config.database.url.expose(), "postgres://v:hunter2@h/d");
}

#[test]
fn hostile_text_in_the_file_cannot_forge_a_line_or_move_a_cursor() {
    let said = check(
        "\"\\n0 mistakes\\u001b[2J\" = 1\n[worker]\n\"\\u202Elease\" = 1\nlease = \"\\u001b[31m\"\npoll_interval = [\n1,\n\"\u{202e}\"]\n[tenants.\"a\\nok\"]\n\"\\r\" = 1\n",
        &[("REPROVISIOND_\n\u{1b}[2J", "x"), ("REPROVISIOND_BATCH_LINGER", "1\u{1b}[2J\n")],
    );
    assert!(!said.contains(['\u{1b}', '\r', '\u{202e}']), "{said:?}");
    assert_snapshot!(said, @r#"
    8 mistakes in the configuration:
    DIR/reprovisiond.toml:1:1: unknown section `\n0 mistakes\u{1b}[2J`
      the sections are database, worker, batch, graph, retry, reconcile, completion, limits, ops, tenants
    DIR/reprovisiond.toml:3:1: unknown key `worker.\u{202e}lease`; did you mean `lease`?
    DIR/reprovisiond.toml:4:9: worker.lease = "\u001b[31m": not a duration
      write whole numbers with the units h, m, s or ms, such as "1m30s"
    DIR/reprovisiond.toml:5:17: worker.poll_interval = [\n1,\n"\u{202e}"]: must be a duration
      write it in double quotes, such as "30s"
    DIR/reprovisiond.toml:8:10: tenants.a\nok: not a tenant name: use 1 to 64 of a-z, 0-9, '-' and '_', beginning with a letter or digit
      choose another name; it is also the one in the tenant column of the queue
    DIR/reprovisiond.toml:9:1: unknown key `tenants.a\nok.\r`
      the keys of [tenants.a\nok] are cloud, graph_url, authority_url, tenant_id, client_id, credential, client_secret_file, certificate_file, federated_token_file, action, calls_per_period, period, open_doubts
    REPROVISIOND_\n\u{1b}[2J: unknown variable
      unset it; the names are REPROVISIOND_SECTION_KEY and REPROVISIOND_TENANTS_NAME_KEY
    REPROVISIOND_BATCH_LINGER: batch.linger = 1\u{1b}[2J\n: not a duration
      write whole numbers with the units h, m, s or ms, such as "1m30s"
    "#);
}
