//! Who this process is, and whether another process on this host still lives.

use crate::domain::id::WorkerId;

/// What tells this process from every other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    /// Host name, boot and process namespace: two processes with the same text see each other's process ids.
    pub(super) host: String,
    /// Process id and start time in clock ticks since boot: ids are used again, this pair is not.
    pub(super) process: String,
}

/// This process. What the system does not tell makes it a stranger to every other, which is safe: its calls are then given
/// up by its lease instead of at once.
pub(super) fn this_process(worker: WorkerId) -> Process {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let namespace = std::fs::read_link("/proc/self/ns/pid");
    let id = std::process::id();
    match (boot, namespace, start_time(&id.to_string())) {
        (Ok(boot), Ok(namespace), Some(start)) => Process {
            host: format!("{name} {} {}", boot.trim(), namespace.display()),
            process: format!("{id}:{start}"),
        },
        _ => Process { host: format!("{name} {worker}"), process: id.to_string() },
    }
}

/// Whether `process`, as written by [`this_process`] on this same host, still runs.
pub(super) fn is_alive(process: &str) -> bool {
    match process.split_once(':') {
        Some((id, start)) => start_time(id).as_deref() == Some(start),
        None => true,
    }
}

/// Field 22 of /proc/ID/stat, unless the process has ended and only waits to be reaped.
fn start_time(id: &str) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The command name, in parentheses, may hold anything: fields are counted behind it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") { None } else { fields.nth(18).map(str::to_owned) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::WorkerId;

    #[test]
    fn a_process_is_told_from_another_that_has_its_id_again() {
        let me = this_process(WorkerId(uuid::Uuid::nil()));
        assert!(is_alive(&me.process), "{me:?}");
        let (id, _) = me.process.split_once(':').unwrap();
        assert!(!is_alive(&format!("{id}:1")));
        assert!(!is_alive("999999999:1"));
    }
}
