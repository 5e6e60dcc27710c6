//! What systemd's journal gets, by a socket that stands for its own.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{IoSliceMut, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::{Arc, Mutex};

use reprovisiond::simulator::{Effect, Options, Simulator, StatusFault};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::{BRISK, Backend, Daemon, Scratch, calm};

/// The fields of an entry, each with its values.
type Entry = BTreeMap<String, String>;

/// journald's ends: the socket for entries, and the stream that a unit's stderr is connected to.
struct Journal {
    directory: TempDir,
    /// Bound, and read where `entries` are gathered.
    socket: Arc<UnixDatagram>,
    entries: Arc<Mutex<Vec<Entry>>>,
    stream: UnixStream,
    stderr: UnixStream,
}

impl Journal {
    /// Takes nothing yet.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = Arc::new(UnixDatagram::bind(directory.path().join("socket")).unwrap());
        let (stream, stderr) = UnixStream::pair().unwrap();
        stream.set_nonblocking(true).unwrap();
        Self { directory, socket, entries: Arc::default(), stream, stderr }
    }

    fn reads(self) -> Self {
        let (socket, entries) = (Arc::clone(&self.socket), Arc::clone(&self.entries));
        std::thread::spawn(move || {
            while let Some(bytes) = received(&socket) {
                entries.lock().unwrap().push(parsed(&bytes));
            }
        });
        self
    }

    /// Starts the daemon as systemd does.
    fn start(&self, daemon: &mut Daemon, simulator: &Simulator, env: &[&str]) {
        let stderr = rustix::fs::fstat(&self.stderr).unwrap();
        let stream = format!("JOURNAL_STREAM={}:{}", stderr.st_dev, stderr.st_ino);
        let socket = format!("FAILPOINTS=journal-socket=return({})", self.directory.path().join("socket").display());
        let under = [&["env", &stream, &socket], env].concat();
        daemon.spawn_into(simulator, &under, OwnedFd::from(self.stderr.try_clone().unwrap()));
    }

    fn entries(&self) -> Vec<Entry> {
        self.entries.lock().unwrap().clone()
    }

    /// The first entry with this text in its message.
    async fn until(&self, daemon: &Daemon, text: &str) -> Entry {
        let find = || self.entries().into_iter().find(|entry| entry["MESSAGE"].contains(text));
        daemon.until(&format!("{text} in {:?}", self.entries()), async || find().is_some()).await;
        find().unwrap()
    }

    /// What has come on stderr since this was last asked.
    fn stderr(&self) -> String {
        let mut bytes = Vec::new();
        let end = (&self.stream).read_to_end(&mut bytes);
        assert!(end.is_ok() || end.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
        String::from_utf8(bytes).unwrap()
    }

    async fn until_on_stderr(&self, daemon: &Daemon, text: &str) -> String {
        let gathered = Mutex::new(String::new());
        let came = async || {
            let mut gathered = gathered.lock().unwrap();
            gathered.push_str(&self.stderr());
            gathered.contains(text)
        };
        daemon.until(text, came).await;
        gathered.into_inner().unwrap()
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // Ends whoever still reads.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

/// A datagram, or the sealed file that comes in its place.
fn received(socket: &UnixDatagram) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 1 << 20];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::empty()).ok()?;
    let sent = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    if let Some(file) = sent {
        use rustix::fs::SealFlags;
        let seals = rustix::fs::fcntl_get_seals(&file).unwrap();
        assert!(
            seals.contains(SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE),
            "journald would refuse {seals:?}"
        );
        let file = File::from(file);
        bytes.resize(usize::try_from(file.metadata().unwrap().len()).unwrap(), 0);
        file.read_exact_at(&mut bytes, 0).unwrap();
        return Some(bytes);
    }
    // A socket that is shut down gives nothing.
    (message.bytes > 0).then(|| bytes[..message.bytes].to_vec())
}

/// As journald reads it, where it would not drop anything.
fn parsed(mut bytes: &[u8]) -> Entry {
    let mut entry = Entry::new();
    while !bytes.is_empty() {
        let end = bytes.iter().position(|byte| *byte == b'\n').unwrap();
        let line = std::str::from_utf8(&bytes[..end]).unwrap();
        let (name, value, rest) = if let Some((name, value)) = line.split_once('=') {
            (name, value.to_owned(), &bytes[end + 1..])
        } else {
            let (length, rest) = bytes[end + 1..].split_at(8);
            let length = usize::try_from(u64::from_le_bytes(length.try_into().unwrap())).unwrap();
            assert_eq!(rest[length], b'\n');
            (line, String::from_utf8(rest[..length].to_vec()).unwrap(), &rest[length + 1..])
        };
        let good = name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
        assert!(good && !name.starts_with('_') && name.len() <= 64, "{name:?}");
        assert_eq!(entry.insert(name.to_owned(), value), None, "{name} twice");
        bytes = rest;
    }
    entry
}

async fn migrated(simulator: &Simulator, settings: &str) -> (Scratch, Daemon) {
    let scratch = Scratch::new(Backend::Sqlite).await;
    let daemon = Daemon::migrated(&scratch.url, simulator, settings).await;
    (scratch, daemon)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_have_priorities_named_fields_and_a_message_that_reads_alone() {
    let simulator = Simulator::start(Options { faults: "429:1@2,403@3".parse().unwrap(), ..calm() }).unwrap();
    let (scratch, mut daemon) = migrated(&simulator, BRISK).await;
    let journal = Journal::new().reads();
    journal.start(&mut daemon, &simulator, &["REPROVISIOND_LOG=reprovisiond=debug"]);
    let started = journal.until(&daemon, "started").await;
    assert_eq!((started["PRIORITY"].as_str(), started["REPROVISIOND_TENANTS"].as_str()), ("6", "1"));
    assert_eq!(started["REPROVISIOND_WORKER_ID"], scratch.rows("SELECT id FROM workers").await);
    scratch.request(&simulator, 7).await;
    let call = journal.until(&daemon, "call answered").await;
    assert_eq!(call["SYSLOG_IDENTIFIER"], "reprovisiond");
    let id = scratch.rows("SELECT id FROM graph_calls").await;
    let graphs = scratch.rows("SELECT graph_request_id FROM graph_calls").await;
    let expected = [
        ("TENANT", "default"),
        ("CALL_ID", &id),
        ("ACTION", "bulk-reprovision-cloud-pc"),
        ("DEVICES", "7"),
        ("OUTCOME", "answered"),
        ("SUCCESSFUL", "7"),
        ("ATTEMPT", "1"),
        ("HTTP_STATUS", "200"),
        ("GRAPH_REQUEST_ID", &graphs),
    ];
    for (name, value) in expected {
        assert_eq!(call[&format!("REPROVISIOND_{name}")], value, "{call:?}");
        assert!(call["MESSAGE"].contains(&format!(" {}={value}", name.to_lowercase())), "{call:?}");
    }
    assert!(call["REPROVISIOND_DURATION_MS"].parse::<u32>().is_ok() && call["PRIORITY"] == "6", "{call:?}");

    scratch.request_after(&simulator, 7, 1).await;
    assert_eq!(journal.until(&daemon, "the tenant waits").await["PRIORITY"], "4");
    assert_eq!(journal.until(&daemon, "the tenant is blocked").await["PRIORITY"], "3");
    assert!(daemon.stop().await.success());
    journal.until(&daemon, "stopped").await;
    assert_eq!(journal.stderr(), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_text_of_graphs_begins_a_line_or_a_field() {
    let simulator = Simulator::start(calm()).unwrap();
    let message = "a\nPRIORITY=0\n<0>b\u{1b}[2J tenant=other \"\u{202e}";
    let refusal = StatusFault { code: 403, message: Some(message.to_owned()), ..StatusFault::default() };
    simulator.add_fault(Effect::Status(refusal)).unwrap();
    let (scratch, mut daemon) = migrated(&simulator, BRISK).await;
    let journal = Journal::new().reads();
    journal.start(&mut daemon, &simulator, &[]);
    scratch.request(&simulator, 1).await;
    let entry = journal.until(&daemon, "the tenant is blocked").await;
    assert_eq!((entry["PRIORITY"].as_str(), entry["REPROVISIOND_TENANT"].as_str()), ("3", "default"));
    assert!(entry["REPROVISIOND_ERROR"].contains("tenant=other"), "{entry:?}");
    let shown = &entry["MESSAGE"];
    assert!(!shown.chars().any(char::is_control) && !shown.contains('\u{202e}'), "{shown}");
    assert!(shown.split(" error=\"").nth(1).unwrap().contains("tenant=other"), "in quotes: {shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_too_large_for_a_datagram_comes_whole() {
    let simulator = Simulator::start(calm()).unwrap();
    let (_scratch, mut daemon) = migrated(&simulator, BRISK).await;
    let journal = Journal::new().reads();
    journal.start(&mut daemon, &simulator, &[]);
    journal.until(&daemon, "started").await;
    let mistakes: Vec<String> = (0..5000).map(|n| format!("no_such_key_{n} = {n}\n")).collect();
    daemon.reconfigure(|text| mistakes.concat() + text);
    daemon.signal(Signal::HUP);
    let entry = journal.until(&daemon, "is not reloaded").await;
    let error = &entry["REPROVISIOND_ERROR"];
    assert!(
        error.len() > 300_000 && error.contains("no_such_key_0`") && error.contains("no_such_key_4999`"),
        "{}",
        error.len()
    );
    assert!(error.contains('\n') && !entry["MESSAGE"].contains('\n'));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_journal_the_lines_go_to_stderr_with_their_priorities_and_the_work_goes_on() {
    let simulator = Simulator::start(Options { faults: "403@2".parse().unwrap(), ..calm() }).unwrap();
    let (scratch, mut daemon) = migrated(&simulator, BRISK).await;
    let journal = Journal::new();
    std::fs::remove_file(journal.directory.path().join("socket")).unwrap();
    journal.start(&mut daemon, &simulator, &[]);
    scratch.request(&simulator, 3).await;
    let lines = journal.until_on_stderr(&daemon, "call answered").await;
    assert!(lines.lines().all(|line| line.starts_with("<6>")), "{lines}");
    assert!(
        lines.contains("<6>started worker_id=") && lines.contains("<6>call answered tenant=default call_id="),
        "{lines}"
    );
    scratch.request_after(&simulator, 3, 1).await;
    journal.until_on_stderr(&daemon, "<3>call not carried out").await;
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_takes_nothing_any_more_holds_up_no_work_and_learns_how_much_it_has_missed() {
    let simulator = Simulator::start(calm()).unwrap();
    let (scratch, mut daemon) = migrated(&simulator, &format!("[batch]\nmax_devices = 1\n{BRISK}")).await;
    // Neither socket is read.
    let journal = Journal::new();
    journal.start(&mut daemon, &simulator, &["REPROVISIOND_LOG=trace"]);
    scratch.request(&simulator, 100).await;
    daemon.until_all_ended(&scratch).await;
    assert_eq!(simulator.ledger().len(), 100);
    let journal = journal.reads();
    scratch.request_after(&simulator, 100, 1).await;
    let entry = journal.until(&daemon, "lost_entries=").await;
    assert!(entry["REPROVISIOND_LOST_ENTRIES"].parse::<u32>().unwrap() > 0, "{entry:?}");
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reasons_of_a_start_that_fails_are_errors_line_by_line() {
    let simulator = Simulator::start(calm()).unwrap();
    let (_scratch, mut daemon) = migrated(&simulator, BRISK).await;
    daemon.reconfigure(|text| format!("no_such_key = 1\nnor_this = 2\n{text}"));
    let journal = Journal::new();
    journal.start(&mut daemon, &simulator, &[]);
    assert_eq!(daemon.ended().await.code(), Some(78));
    let lines = journal.stderr();
    assert!(
        lines.starts_with("<3>reprovisiond: ") && lines.contains("no_such_key") && lines.contains("nor_this"),
        "{lines}"
    );
    assert!(lines.lines().all(|line| line.starts_with("<3>")), "{lines}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stderr_that_only_inherits_the_variable_gets_json() {
    let simulator = Simulator::start(calm()).unwrap();
    let (_scratch, mut daemon) = migrated(&simulator, BRISK).await;
    daemon.spawn(&simulator, &["env", "JOURNAL_STREAM=9:12345"]);
    assert_eq!(daemon.started().await, None);
    assert!(daemon.log().iter().all(|line| line.starts_with('{')), "{:?}", daemon.log());
}
