//! What is shipped in `deploy` is accepted by the program, and holds together.

mod watching;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn path(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path)
}

fn shipped(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap()
}

/// What `check-config` says of a shipped configuration, with the environment of its surroundings.
fn checked(name: &str, env: &[(&str, &str)]) -> (bool, String) {
    let mut program = Command::new(env!("CARGO_BIN_EXE_reprovisiond"));
    program.env_clear().envs(env.iter().copied()).stdin(Stdio::null());
    let output = program.args(["check-config", "--config"]).arg(path(name)).output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (output.status.success(), said)
}

#[test]
fn the_configuration_of_kubernetes_is_good_with_what_the_webhook_adds() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "e30.e30.e30").unwrap();
    let (good, said) = checked(
        "kubernetes/reprovisiond.toml",
        &[
            ("AZURE_CLIENT_ID", "11111111-2222-4333-8444-555555555555"),
            ("AZURE_TENANT_ID", "c4b7e9d1-2f63-4a58-8e0c-6d915b3f7a24"),
            ("AZURE_FEDERATED_TOKEN_FILE", token.to_str().unwrap()),
            ("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.com/"),
        ],
    );
    assert!(good, "{said}");
}

/// The number after `key` in a text where it stands once.
fn seconds(text: &str, key: &str) -> u64 {
    let [_, rest] = text.split(key).collect::<Vec<_>>()[..] else { panic!("{key} does not stand once in\n{text}") };
    rest.trim_start_matches([' ', '=', ':', '"']).split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

#[test]
fn kubernetes_waits_longer_than_the_drain_before_it_kills() {
    let grace = seconds(&shipped("kubernetes/deployment.yaml"), "\n      terminationGracePeriodSeconds:");
    let drain = seconds(&shipped("kubernetes/reprovisiond.toml"), "\ndrain_timeout");
    assert!(grace >= drain + 15, "{grace} s for a drain of {drain} s");
}

#[test]
fn the_packages_configuration_lacks_nothing_but_the_tenant() {
    let (good, said) = checked("debian/reprovisiond.toml", &[]);
    assert!(!good && said.contains(": 1 mistake in") && said.contains("no tenant is configured"), "{said}");
}

#[test]
fn the_image_is_given_every_file_that_the_build_includes() {
    let given = shipped("container/Containerfile");
    for named in ["src src", "migrations migrations", "config config", "Cargo.toml Cargo.lock ./"] {
        assert!(given.contains(&format!("COPY {named}\n")), "{named}");
    }
    let ignored = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(".containerignore")).unwrap();
    let copied = given.lines().filter_map(|line| line.strip_prefix("COPY ")).filter(|line| !line.starts_with("--from"));
    for file in copied.flat_map(|line| line.split(' ').rev().skip(1)) {
        assert!(ignored.contains(&format!("\n!{file}\n")), "{file} is not let through by .containerignore");
    }
}
