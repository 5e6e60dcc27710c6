//! The newcomer's first minute.

use std::time::Duration;

use super::program::{Said, command, said};
use crate::support::{Backend, Scratch, on_both};

async fn demo(dir: &std::path::Path, args: &[&str]) -> Said {
    let mut command = command(args);
    command.current_dir(dir);
    let ended = tokio::task::spawn_blocking(move || said(&mut command, ""));
    // A bound, never a wait: it takes some ten seconds.
    tokio::time::timeout(Duration::from_mins(2), ended).await.unwrap().unwrap()
}

/// What the demo of sixty devices ends with, by this action.
async fn totals(scratch: &Scratch, action: &str) -> [u32; 4] {
    let dir = tempfile::tempdir().unwrap();
    let mut args = vec!["demo", "--devices", "60", "--action", action];
    if scratch.backend() == Backend::Postgres {
        args.extend(["--database", &scratch.url]);
    }
    let said = demo(dir.path(), &args).await;
    assert_eq!(said.code, 0, "{said}");
    assert!(said.stdout.contains("0 of them twice"), "{said}");
    assert!(said.stdout.contains("devices were unknown until read-back"), "{said}");
    buckets(&said)
}

fn buckets(said: &Said) -> [u32; 4] {
    let devices = |bucket: &str| {
        let line = said.stdout.lines().find(|line| line.trim_start().starts_with(bucket)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u32>().unwrap()
    };
    ["successful", "failed", "not_found", "not_supported"].map(devices)
}

/// Of sixty devices, by every action.
const TOTALS: [u32; 4] = [54, 4, 1, 1];

on_both! {
    async fn the_demo_ends_every_request_wipes_nothing_twice_and_settles_a_lost_answer_before_ones_eyes(scratch: Scratch) {
        let dir = tempfile::tempdir().unwrap();
        let said = match scratch.backend() {
            Backend::Sqlite => demo(dir.path(), &["demo"]).await,
            Backend::Postgres => demo(dir.path(), &["demo", "--database", &scratch.url]).await,
        };
        assert_eq!(said.code, 0, "{said}");
        let buckets = buckets(&said);
        assert_eq!((buckets.iter().sum::<u32>(), buckets[0]), (250, 230), "{said}");
        assert!(said.stdout.contains("230 devices reprovisioned, 0 of them twice"), "{said}");
        assert!(said.stdout.contains("25 devices were unknown until read-back"), "{said}");
        assert!(said.stdout.contains("7c82a3e3-9459-44e4-94d9-b92f93bf78dd  failed"), "{said}");
        for seen in ["HTTP 429", "HTTP 503", "call in doubt", "devices in doubt were read back"] {
            assert!(said.stderr.contains(seen), "{seen}: {said}");
        }
    }

    async fn the_demo_of_the_first_action_ends_with_the_totals_of_all(scratch: Scratch) {
        assert_eq!(totals(&scratch, "bulk-reprovision-cloud-pc").await, TOTALS);
    }

    async fn the_demo_of_a_bulk_action_ends_with_the_totals_of_all(scratch: Scratch) {
        assert_eq!(totals(&scratch, "cloud-pc-bulk-action").await, TOTALS);
    }

    async fn the_demo_of_a_batch_ends_with_the_totals_of_all(scratch: Scratch) {
        assert_eq!(totals(&scratch, "cloud-pc-reprovision").await, TOTALS);
    }
}
