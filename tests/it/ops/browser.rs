//! The page in a real browser, headless: what its DOM is, how wide it is, and that it complains of nothing.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use reprovisiond::simulator::Simulator;
use tokio::process::Command;

use super::page::troubled;
use crate::support::{Backend, Scratch, calm};

/// What the browser was shown, and what it said.
struct Shown {
    dom: String,
    console: String,
}

/// Loads `url` in a window of this width, and keeps a picture of it if `picture` names a file.
async fn show(profile: &Path, url: &str, width: u32, dark: bool, picture: Option<&Path>) -> Shown {
    let mut chromium = Command::new("chromium");
    chromium
        // Root, as in a container, has no sandbox; what is loaded is our own page.
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"])
        .args(["--enable-logging=stderr", "--v=0"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("--window-size={width},{}", if width < 600 { 2600 } else { 1700 }));
    if dark {
        chromium.arg("--blink-settings=preferredColorScheme=0");
    }
    match picture {
        Some(file) => chromium.arg(format!("--screenshot={}", file.display())),
        None => chromium.arg("--dump-dom"),
    };
    let run = chromium.arg(url).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(Duration::from_mins(1), run).await.expect("chromium ends");
    let output = output.expect("chromium (tests/prerequisites installs it)");
    let console = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{console}");
    Shown { dom: String::from_utf8(output.stdout).unwrap(), console }
}

/// Where pictures go that somebody wants to look at.
fn pictures() -> Option<PathBuf> {
    std::env::var_os("OPS_PICTURES").map(PathBuf::from)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_shows_the_page_and_runs_nothing() {
    let scratch = Scratch::new(Backend::Sqlite).await;
    let simulator = Simulator::start(calm()).unwrap();
    let watched = troubled(&scratch, &simulator).await;
    let profile = tempfile::tempdir().unwrap();
    let held = scratch.rows("SELECT managed_device_id FROM reprovision_queue WHERE state = 'held' LIMIT 1").await;
    for path in ["/".to_owned(), format!("/device?id={held}")] {
        let url = format!("http://{}{path}", watched.address);
        let shown = show(profile.path(), &url, 1280, false, None).await;
        assert!(!shown.console.contains("CONSOLE"), "{}", shown.console);
        for bad in ["<script", "<img", "onerror=\"", "<iframe"] {
            assert!(!shown.dom.contains(bad), "{bad} in the DOM of {path}\n{}", shown.dom);
        }
        assert!(shown.dom.contains("&lt;script&gt;"), "{}", shown.dom);
        if let Some(directory) = pictures() {
            let name = if path == "/" { "front" } else { "device" };
            for (width, dark) in [(1280, false), (1280, true), (390, false), (390, true)] {
                let file = directory.join(format!("{name}-{width}-{}.png", if dark { "dark" } else { "light" }));
                show(profile.path(), &url, width, dark, Some(&file)).await;
            }
        }
    }
}

/// The browser has no script to measure with: a frame of 390 px on a page of the test's own has one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_phone_shows_it_without_scrolling_sideways() {
    let scratch = Scratch::new(Backend::Sqlite).await;
    let simulator = Simulator::start(calm()).unwrap();
    let watched = troubled(&scratch, &simulator).await;
    let profile = tempfile::tempdir().unwrap();
    let style = watched.get("/style.css").await.body;
    let held = scratch.rows("SELECT managed_device_id FROM reprovision_queue WHERE state = 'held' LIMIT 1").await;
    for path in ["/".to_owned(), format!("/device?id={held}")] {
        let page = watched.get(&path).await.body;
        let link = "<link rel=\"stylesheet\" href=\"/style.css\">";
        assert!(page.contains(link), "{page}");
        let page = page.replace(link, &format!("<style>{style}</style>"));
        let inner = profile.path().join("inner.html");
        std::fs::write(&inner, page).unwrap();
        let outer = profile.path().join("outer.html");
        let measure = "<iframe id=f width=390 height=3000 src=inner.html></iframe><p id=m></p><script>onload = () => { const d = f.contentDocument.documentElement; m.textContent = 'width ' + d.scrollWidth + ' of ' + d.clientWidth; }</script>";
        std::fs::write(&outer, format!("<!doctype html>{measure}")).unwrap();
        let url = format!("file://{}", outer.display());
        let shown = measured(profile.path(), &url).await;
        let widths = shown.split_once("width ").and_then(|(_, rest)| rest.split_once('<')).map(|(widths, _)| widths);
        let (scroll, client) = widths.and_then(|w| w.split_once(" of ")).unwrap_or_else(|| panic!("{shown}"));
        assert_eq!((scroll, client.parse::<u32>().unwrap() > 300), (client, true), "{path}");
    }
}

async fn measured(profile: &Path, url: &str) -> String {
    let output = Command::new("chromium")
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
        .args(["--allow-file-access-from-files", "--disable-background-networking", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.join("measure").display()))
        .arg(url)
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_mins(1), output).await.expect("chromium ends").unwrap();
    String::from_utf8(output.stdout).unwrap()
}
