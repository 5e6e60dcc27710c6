//! Noticing another process's commit at next to no cost.
//!
//! `PRAGMA data_version` says for certain whether somebody has committed, but has to be asked, and asking often enough to
//! be quick costs more CPU than all else that an idle daemon does. So the kernel says when the write-ahead log is written
//! to, and only then is it asked; with a slow tick beside it for file systems where the kernel does not say.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use inotify::{EventStream, Inotify, WatchMask};
use sqlx::SqliteConnection;
use tokio::sync::Notify;

use super::sql;
use crate::store::StoreError;

/// How often it is asked even if the kernel says nothing.
const TICK: Duration = Duration::from_secs(1);

/// A commit is visible only once its bytes are on the disk, and the kernel speaks before that: pauses, in milliseconds,
/// between the looks that follow its word. Whatever it says meanwhile begins them anew; a commit that is seen does not end
/// them, for what was written may have been another's.
const LOOKS_MS: [u64; 11] = [1, 1, 2, 4, 8, 16, 32, 64, 100, 200, 400];

/// Runs for as long as the connection lives.
pub(super) async fn watch(
    connection: &mut SqliteConnection,
    file: &Path,
    nudge: &Arc<Notify>,
) -> Result<(), StoreError> {
    let mut seen = data_version(connection).await?;
    // Whatever was inserted before this began.
    nudge.notify_one();
    let mut log = WriteAheadLog::of(file).ok();
    let mut looks = [].iter();
    loop {
        let pause = looks.next().map_or(TICK, |pause| Duration::from_millis(*pause));
        if let Some(log) = &mut log {
            if tokio::time::timeout(pause, log.written()).await.is_ok() {
                looks = LOOKS_MS.iter();
            }
        } else {
            tokio::time::sleep(TICK / 20).await;
        }
        let version = data_version(connection).await?;
        if std::mem::replace(&mut seen, version) != version {
            nudge.notify_one();
        }
    }
}

async fn data_version(connection: &mut SqliteConnection) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar(sql::DATA_VERSION).fetch_one(connection).await?)
}

/// The file beside the database that every commit is appended to.
struct WriteAheadLog(EventStream<[u8; 1024]>);

impl WriteAheadLog {
    fn of(file: &Path) -> io::Result<Self> {
        let mut log = file.as_os_str().to_owned();
        log.push("-wal");
        let inotify = Inotify::init()?;
        inotify.watches().add(PathBuf::from(log), WatchMask::MODIFY)?;
        Ok(Self(inotify.into_event_stream([0; 1024])?))
    }

    /// Until it is written to. Writes that came together are one.
    async fn written(&mut self) {
        if self.0.next().await.is_none() {
            // Never said by inotify; the tick beside this goes on.
            std::future::pending::<()>().await;
        }
        while self.0.next().now_or_never().flatten().is_some() {}
    }
}
