//! Tenants.

use super::*;

#[test]
fn no_tenant_is_a_mistake_that_shows_what_one_looks_like() {
    assert_snapshot!(check("", &[]), @r#"
    1 mistake in the configuration:
    DIR/reprovisiond.toml: no tenant is configured
      add one to the configuration file:
        [tenants.contoso]
        tenant_id = "DIRECTORY-ID-OR-DOMAIN"
        client_id = "APPLICATION-ID"
        client_secret_file = "contoso.secret"
    "#);
    assert_snapshot!(Scene::new(None, &[]).outcome(), @r#"
    1 mistake in the configuration:
    no tenant is configured
      add one to the configuration file:
        [tenants.contoso]
        tenant_id = "DIRECTORY-ID-OR-DOMAIN"
        client_id = "APPLICATION-ID"
        client_secret_file = "contoso.secret"
    "#);
}

#[test]
fn a_tenant_is_a_section_with_a_name_of_its_own() {
    assert_snapshot!(check("[tenants]\ncloud = \"global\"\nclient_secret = \"hunter2\"\n", &[]), @r#"
    2 mistakes in the configuration:
    DIR/reprovisiond.toml:2:1: tenants.cloud: a tenant is a section
      write [tenants.NAME] above the keys of each tenant
    DIR/reprovisiond.toml:3:1: unknown key `tenants.client_secret`: secrets come only from files
      write the secret to a file that only the daemon can read and name it: client_secret_file = "PATH"
    "#);
    assert_snapshot!(check("[[tenants]]\ncloud = \"global\"\n", &[]), @"
    1 mistake in the configuration:
    DIR/reprovisiond.toml:1:3: `tenants` holds one section for each tenant
      write [tenants.NAME]
    ");
    assert_snapshot!(check("[tenants.a]\n", &[]), @r#"
    3 mistakes in the configuration:
    DIR/reprovisiond.toml:1:10: tenants.a has no tenant_id
      add tenant_id = "DIRECTORY-ID-OR-DOMAIN"
    DIR/reprovisiond.toml:1:10: tenants.a has no client_id
      add client_id = "APPLICATION-ID"
    DIR/reprovisiond.toml:1:10: tenants.a has no client_secret_file
      add client_secret_file = "PATH"
    "#);
}

#[test]
fn a_tenants_variable_means_the_tenant_of_the_file_or_declares_one() {
    let id = "30d0e128-de93-41dc-89ec-33d84bb662a1";
    let file = format!("[tenants.con-toso]\n{IDS}{SECRET}");
    assert_snapshot!(check(&file, &[("REPROVISIOND_TENANTS_CON_TOSO_CLIENT_ID", id)]), @"
    ok
    tenants.con-toso.tenant_id = contoso.example  (DIR/reprovisiond.toml:2:13)
    tenants.con-toso.client_id = 30d0e128-de93-41dc-89ec-33d84bb662a1  (REPROVISIOND_TENANTS_CON_TOSO_CLIENT_ID)
    tenants.con-toso.client_secret_file = DIR/a.secret  (DIR/reprovisiond.toml:4:22)
    ");
    let declared = [
        ("REPROVISIOND_TENANTS_FABRI_KAM_CLIENT_ID", id),
        ("REPROVISIOND_TENANTS_FABRI_KAM_TENANT_ID", "fabrikam.example"),
        ("REPROVISIOND_TENANTS_FABRI_KAM_CLIENT_SECRET_FILE", "a.secret"),
    ];
    assert_snapshot!(check("", &declared), @"
    ok
    tenants.fabri_kam.tenant_id = fabrikam.example  (REPROVISIOND_TENANTS_FABRI_KAM_TENANT_ID)
    tenants.fabri_kam.client_id = 30d0e128-de93-41dc-89ec-33d84bb662a1  (REPROVISIOND_TENANTS_FABRI_KAM_CLIENT_ID)
    tenants.fabri_kam.client_secret_file = DIR/a.secret  (REPROVISIOND_TENANTS_FABRI_KAM_CLIENT_SECRET_FILE)
    ");
    assert_snapshot!(check(&file, &[("REPROVISIOND_TENANTS_CONTOSO_CLIENT_ID", id)]), @r#"
    2 mistakes in the configuration:
    REPROVISIOND_TENANTS_CONTOSO_CLIENT_ID: tenants.contoso has no tenant_id
      add tenant_id = "DIRECTORY-ID-OR-DOMAIN"; or did you mean the tenant con-toso?
    REPROVISIOND_TENANTS_CONTOSO_CLIENT_ID: tenants.contoso has no client_secret_file
      add client_secret_file = "PATH"; or did you mean the tenant con-toso?
    "#);
    let twins = format!("[tenants.a-b]\n{IDS}{SECRET}[tenants.a_b]\n{IDS}{SECRET}");
    assert_snapshot!(check(&twins, &[("REPROVISIOND_TENANTS_A_B_CLIENT_ID", id)]), @"
    1 mistake in the configuration:
    REPROVISIOND_TENANTS_A_B_CLIENT_ID: can mean each of the tenants a-b, a_b
      set this key in the file, or rename a tenant
    ");
}

#[test]
fn a_cloud_gives_its_urls_and_only_custom_takes_others() {
    for (word, graph, authority) in [
        ("global", "https://graph.microsoft.com/", "https://login.microsoftonline.com/"),
        ("us-gov-l4", "https://graph.microsoft.us/", "https://login.microsoftonline.us/"),
        ("us-gov-l5", "https://dod-graph.microsoft.us/", "https://login.microsoftonline.us/"),
        ("china", "https://microsoftgraph.chinacloudapi.cn/", "https://login.chinacloudapi.cn/"),
    ] {
        let toml = format!("[tenants.a]\ncloud = \"{word}\"\n{IDS}{SECRET}");
        let loaded = load(&Scene::new(Some(toml.as_bytes()), &[]).sources).expect(word);
        let tenant = &loaded.config.tenants[&"a".parse().expect("a name")];
        assert_eq!((tenant.graph_url.as_str(), tenant.authority_url.as_str()), (graph, authority));
    }
    assert_snapshot!(check_tenant("graph_url = \"https://graph.microsoft.us\"\n", &[]), @r#"
    1 mistake in the configuration:
    DIR/reprovisiond.toml:5:13: tenants.a.graph_url: the cloud "global" gives this URL
      remove graph_url, or write cloud = "custom" and both URLs
    "#);
    assert_snapshot!(check_tenant("cloud = \"custom\"\ngraph_url = \"http://127.0.0.1:8080/sim\"\n", &[]), @r#"
    1 mistake in the configuration:
    DIR/reprovisiond.toml:1:10: tenants.a has no authority_url
      add authority_url = "https://HOST"
    "#);
    assert_snapshot!(check_tenant("cloud = \"custom\"\ngraph_url = \"http://[::1]:8080\"\nauthority_url = \"http://localhost:8081/\"\n", &[]), @"
    ok
    tenants.a.cloud = custom  (DIR/reprovisiond.toml:5:9)
    tenants.a.graph_url = http://[::1]:8080/  (DIR/reprovisiond.toml:6:13)
    tenants.a.authority_url = http://localhost:8081/  (DIR/reprovisiond.toml:7:17)
    tenants.a.tenant_id = contoso.example  (DIR/reprovisiond.toml:2:13)
    tenants.a.client_id = 30d0e128-de93-41dc-89ec-33d84bb662a0  (DIR/reprovisiond.toml:3:13)
    tenants.a.client_secret_file = DIR/a.secret  (DIR/reprovisiond.toml:4:22)
    ");
}

#[test]
fn a_url_is_https_and_holds_nothing_but_a_place() {
    let refusal = |url: &str| tenant::base_url(url).map(String::from).map_err(|complaint| complaint.rule);
    for (url, rule) in [
        ("http://graph.microsoft.com", "tokens and wipes must not travel unencrypted"),
        ("http://127.0.0.1.example.com", "tokens and wipes must not travel unencrypted"),
        ("http://localhost.example.com", "tokens and wipes must not travel unencrypted"),
        ("http://[::ffff:1.2.3.4]", "tokens and wipes must not travel unencrypted"),
        ("ftp://h", "not an https URL"),
        ("graph.microsoft.com", "not a URL"),
        ("https://u:hunter2@h", "must hold no user name or password"),
        ("https://u@h", "must hold no user name or password"),
        ("https://h/?x", "must hold no query and no fragment"),
        ("https://h/#x", "must hold no query and no fragment"),
        ("https://h/v1.0", "must hold no Graph version"),
        ("https://h/beta/", "must hold no Graph version"),
    ] {
        assert_eq!(refusal(url), Err(rule.to_owned()), "{url}");
    }
    for (url, kept) in [
        ("https://h", "https://h/"),
        ("https://h/a/b//", "https://h/a/b/"),
        ("http://127.9.9.9:1", "http://127.9.9.9:1/"),
        ("http://LOCALHOST:1/a", "http://localhost:1/a/"),
        ("http://[::1]:1", "http://[::1]:1/"),
    ] {
        assert_eq!(refusal(url), Ok(kept.to_owned()), "{url}");
    }
    let said = check_tenant("cloud = \"custom\"\nauthority_url = \"https://u:hunter2@h\"\n", &[]);
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn a_directory_is_a_guid_or_a_domain() {
    for (text, kept) in [
        ("30D0E128-DE93-41DC-89EC-33D84BB662A0", "30d0e128-de93-41dc-89ec-33d84bb662a0"),
        ("Contoso.OnMicrosoft.com", "contoso.onmicrosoft.com"),
    ] {
        assert_eq!(tenant::directory(text).map_err(|c| c.rule), Ok(kept.to_owned()));
    }
    for text in [
        "",
        "contoso",
        "common",
        "a..b",
        "-a.example",
        "a_b.example",
        "1.2.3.4",
        "a.example/x",
        "00000000-0000-0000-0000-000000000000",
    ] {
        assert!(tenant::directory(text).is_err(), "{text:?}");
    }
}

#[test]
fn two_names_for_one_directory_are_a_warning() {
    let said = check(&format!("[tenants.a]\n{IDS}{SECRET}[tenants.b]\n{IDS}{SECRET}"), &[]);
    assert_snapshot!(said.lines().take(3).collect::<Vec<_>>().join("\n"), @"
    ok
    warning: tenants.a and tenants.b are the same directory
      their limits and waiting times are counted apart; give both one name
    ");
    let clouds = check(&format!("[tenants.a]\n{IDS}{SECRET}[tenants.b]\ncloud = \"china\"\n{IDS}{SECRET}"), &[]);
    assert!(!clouds.contains("same directory"), "{clouds}");
}

#[test]
fn the_bounds_of_tenants_are_known_without_what_they_sign_in_with() {
    let bounds = |text: &str| load_bounds(&Scene::new(Some(text.as_bytes()), &[]).sources);
    let text = "graph.action = \"cloud-pc-bulk-action\"\nbatch.max_devices = 7\nlimits.calls_per_period = 9
        [tenants.a]\n[tenants.b]\naction = \"cloud-pc-reprovision\"\nperiod = \"3s\"\nclient_secret_file = \"absent\"\n";
    let (config, tenants) = bounds(text).expect("no secret is looked for");
    assert_eq!((config.batch.max_devices, config.tenants.len()), (7, 0));
    let seen: Vec<_> =
        tenants.iter().map(|(action, limits)| (*action, limits.rate.calls, limits.rate.period)).collect();
    let seconds = Duration::from_secs;
    assert_eq!(seen, [(Action::CloudPcBulkAction, 9, seconds(20)), (Action::CloudPcReprovision, 9, seconds(3))]);
    let mistakes = bounds("[tenants.a]\ncalls_per_period = 0\n").expect_err("no such limit").to_string();
    assert!(mistakes.contains("tenants.a.calls_per_period"), "{mistakes}");
}
