//! Whether the file will do for a worker. Nothing is opened for it: closing a second handle would give up SQLite's locks.

use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, accessat, statfs};
use rustix::io::Errno;
use sqlx::SqlitePool;

use super::sql;
use crate::store::StoreError;
use crate::store::condition::Condition;

/// File systems of other machines, by the magic numbers of Linux's statfs(2): locks and shared memory, on which WAL stands, do
/// not hold between machines.
const REMOTE: [(u64, &str); 7] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x00c3_6400, "Ceph"),
    (0x0102_1997, "9P"),
    (0x0bd0_0bd0, "Lustre"),
];

pub(super) async fn examine(reader: &SqlitePool, file: &Path) -> Result<Vec<Condition>, StoreError> {
    let journal: String = sqlx::query_scalar(sql::JOURNAL_MODE).fetch_one(reader).await?;
    let directory = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let magic = statfs(directory).ok().map(|found| u64::from_ne_bytes(found.f_type.to_ne_bytes()) & 0xffff_ffff);
    Ok(vec![writable(may_write(file), may_write(directory)), journal_mode(&journal), file_system(magic)])
}

/// As this process's effective user, and as far as the file system is not read-only.
fn may_write(path: &Path) -> bool {
    let refused = accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS);
    // What the kernel cannot tell is not held against the file.
    !matches!(refused, Err(Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::NOENT))
}

fn writable(file: bool, directory: bool) -> Condition {
    let what = "database file";
    let refused = match (file, directory) {
        (true, true) => return Condition::good(what, "it and its directory are writable".to_owned()),
        (false, _) => "the file may not be written",
        (true, false) => "its directory, where SQLite keeps the -wal and -shm files beside it, may not be written",
    };
    let remedy = "give the daemon's user write permission for both, on a file system that is not mounted read-only; check as that user";
    Condition::unfit(what, StoreError::Unauthorised(refused.to_owned()), remedy)
}

fn journal_mode(mode: &str) -> Condition {
    let what = "database journal";
    if mode.eq_ignore_ascii_case("wal") {
        return Condition::good(what, "write-ahead log".to_owned());
    }
    let seen = format!("journal mode {mode}: readers and the daemon are in each other's way");
    Condition::doubtful(
        what,
        seen,
        "whatever set it should not: `migrate` and `run` set it to WAL when they open the file",
    )
}

fn file_system(magic: Option<u64>) -> Condition {
    let what = "database disk";
    match magic.map(|magic| REMOTE.iter().find(|(remote, _)| *remote == magic)) {
        Some(Some((_, name))) => Condition::doubtful(
            what,
            format!("the file lies on {name}, where SQLite's locks need not hold between machines"),
            "put it on a disk of this machine, or use Postgres",
        ),
        Some(None) => Condition::good(what, "not on a network file system that is known".to_owned()),
        None => Condition::good(what, "which file system it is on is not known".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_must_be_writable_with_its_directory_and_should_be_local_and_in_wal() {
        let judged = |condition: Condition| match condition {
            Condition { seen: Err(_), .. } => "unfit",
            Condition { remedy: Some(_), .. } => "doubtful",
            _ => "good",
        };
        assert_eq!(judged(writable(true, true)), "good");
        assert_eq!(judged(writable(true, false)), "unfit");
        assert_eq!(judged(writable(false, true)), "unfit");
        assert_eq!([journal_mode("wal"), journal_mode("delete")].map(judged), ["good", "doubtful"]);
        assert_eq!(
            [Some(0x6969), Some(0xef53), None].map(|magic| judged(file_system(magic))),
            ["doubtful", "good", "good"]
        );
    }

    #[test]
    fn a_path_that_is_not_there_is_not_writable() {
        let directory = tempfile::tempdir().unwrap();
        assert!(may_write(directory.path()));
        assert!(!may_write(&directory.path().join("none")));
    }
}
