//! systemd's journal in its native protocol (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>): a datagram an entry, with its fields.
//!
//! An entry never blocks: what the journal does not take at once goes to stderr as a line with its priority, and what that does not
//! take either is counted and reported by the next entry that goes through.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, send, sendmsg_addr, sendto};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::domain::printable::printable;
use crate::failpoint;

/// Where journald listens.
const SOCKET: &str = "/run/systemd/journal/socket";

/// Before each field's name, so that none is taken for one of systemd's.
const PREFIX: &str = "REPROVISIOND_";

/// The longest name that journald takes.
const LONGEST_NAME: usize = 64;

/// The longest line on stderr, in bytes: the kernel takes as much as a whole or not at all.
const LONGEST_LINE: usize = 16 * 1024;

const AT_ONCE: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

/// Whether stderr goes to the journal: `JOURNAL_STREAM` names its device and inode. A child whose stderr goes elsewhere inherits the
/// variable too.
pub(super) fn is_stderr() -> bool {
    let stderr = rustix::fs::fstat(io::stderr()).map(|it| format!("{}:{}", it.st_dev, it.st_ino));
    std::env::var("JOURNAL_STREAM").is_ok_and(|stream| stderr.is_ok_and(|stderr| stderr == stream))
}

/// Writes events to the journal.
pub(super) struct Journal {
    /// None where there are no such sockets.
    socket: Option<UnixDatagram>,
    lost: AtomicU64,
}

impl Journal {
    pub(super) fn new() -> Self {
        Self { socket: UnixDatagram::unbound().ok(), lost: AtomicU64::new(0) }
    }

    /// Each time by the address: a journald that has been restarted may listen on a new socket.
    fn deliver(&self, datagram: &[u8]) -> io::Result<()> {
        let socket = self.socket.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        let address = SocketAddrUnix::new(failpoint::instead("journal-socket", SOCKET))?;
        match sendto(socket, datagram, AT_ONCE, &address) {
            Err(Errno::MSGSIZE | Errno::NOBUFS) => deliver_sealed(socket, &address, datagram),
            sent => Ok(sent.map(drop)?),
        }
    }
}

/// What is too large for a datagram, as a file in memory that nobody can change any more.
fn deliver_sealed(socket: &UnixDatagram, address: &SocketAddrUnix, datagram: &[u8]) -> io::Result<()> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(memfd_create("reprovisiond-log", flags)?);
    file.write_all(datagram)?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL)?;
    let files = [file.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&files));
    sendmsg_addr(socket, address, &[], &mut control, AT_ONCE)?;
    Ok(())
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut entry = Entry::default();
        event.record(&mut entry);
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            entry.take("lost_entries", &lost.to_string());
        }
        let priority = match *event.metadata().level() {
            Level::ERROR => "3",
            Level::WARN => "4",
            Level::INFO => "6",
            Level::DEBUG | Level::TRACE => "7",
        };
        let line = format!("{}{}", printable(&entry.message, usize::MAX), entry.shown);
        let mut datagram = Vec::new();
        put(&mut datagram, "MESSAGE", &line);
        put(&mut datagram, "PRIORITY", priority);
        put(&mut datagram, "SYSLOG_IDENTIFIER", env!("CARGO_PKG_NAME"));
        datagram.append(&mut entry.fields);
        if self.deliver(&datagram).is_err() {
            let cut = line.floor_char_boundary(LONGEST_LINE);
            if send(io::stderr(), format!("<{priority}>{}\n", &line[..cut]).as_bytes(), AT_ONCE).is_err() {
                self.lost.fetch_add(lost + 1, Ordering::Relaxed);
            }
        }
    }
}

/// An entry while its fields are gathered.
#[derive(Default)]
struct Entry {
    message: String,
    /// The fields as the line shows them behind the message.
    shown: String,
    fields: Vec<u8>,
}

impl Entry {
    fn take(&mut self, name: &str, value: &str) {
        if name == "message" {
            value.clone_into(&mut self.message);
            return;
        }
        let _ = write!(self.shown, " {name}=");
        let plain = !value.is_empty() && value.chars().all(|c| !c.is_whitespace() && !matches!(c, '"' | '\\'));
        // Text with a space in it could be taken for another field. Quoted, it is escaped too.
        let _ = if plain && printable(value, usize::MAX).to_string() == value {
            self.shown.write_str(value)
        } else {
            write!(self.shown, "{value:?}")
        };
        put(&mut self.fields, &field_name(name), value);
    }
}

impl Visit for Entry {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field.name(), &format!("{value:?}"));
    }
}

/// `call_id` is `REPROVISIOND_CALL_ID`: capitals, digits and underscores are all that journald takes.
fn field_name(name: &str) -> String {
    let taken = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    PREFIX.chars().chain(name.chars().map(taken)).take(LONGEST_NAME).collect()
}

/// A value with its length before it may hold line ends, and so can begin no field of its own.
fn put(datagram: &mut Vec<u8>, name: &str, value: &str) {
    datagram.extend_from_slice(name.as_bytes());
    datagram.push(b'\n');
    datagram.extend_from_slice(&(value.len() as u64).to_le_bytes());
    datagram.extend_from_slice(value.as_bytes());
    datagram.push(b'\n');
}
