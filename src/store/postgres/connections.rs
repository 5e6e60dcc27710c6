//! Connections to Postgres, and what every transaction on them promises.
//!
//! - **It ends.** A host that vanishes says nothing: no error comes, and none would for a quarter of an hour. So whatever
//!   the daemon asks has `database.patience`, and a pool in which something ran out of time is replaced as a whole: sqlx
//!   asks a connection that comes back whether it is well, and one that has gone silent would keep its place for ever.
//! - **It lets go.** A worker that is stopped in the middle of a claim, or cut off, must not hold its tenant's lock.
//! - **It leaves nothing in the session**, so that PgBouncer may give each transaction another connection: time-outs are the
//!   transaction's, statements have no name if the URL says so, and nothing is asked outside a transaction.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::pin::pin;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use sqlx::error::BoxDynError;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgPool, PgPoolOptions, PgQueryResult, PgRow, PgTypeInfo};
use sqlx::postgres::{PgConnection, PgStatement, PgTransactionManager, Postgres};
use sqlx::{ConnectOptions as _, Connection as _, Describe, Either, Execute, Executor, SqlStr};
use sqlx_core::transaction::TransactionManager as _;
use tokio::time::{Instant, timeout, timeout_at};
use url::Url;

use crate::config::DatabaseUrl;
use crate::store::StoreError;

/// Enough for the loop, the lease, the reconciler and the calls that end at the same time.
const CONNECTIONS: u32 = 6;

/// How long a connection may take to come about; a server that is starting is tried again for as long.
const CONNECT: Duration = Duration::from_secs(10);

/// How long is spent on finding out why there is no connection.
const WHY: Duration = Duration::from_secs(2);

/// In one round trip with BEGIN, and gone with the transaction. A verb's statements follow each other at once: who is
/// silent for 15 s in between has been stopped or cut off, and the others are waiting for its tenant's lock. They wait a
/// little longer than that, and less than `database.patience` has by default.
///
/// Each statement of a verb is made of look-ups in indexes. A planner that has last seen a table empty believes a sequential
/// scan to be cheaper, and keeps that plan, for foreign keys too, while the table grows: 16 µs a device for each key, instead
/// of 2. What is estimated then would also be worth compiling, and never is.
const BEGIN: &str = "BEGIN; SET LOCAL idle_in_transaction_session_timeout = '15s'; SET LOCAL lock_timeout = '20s'; SET LOCAL enable_seqscan = off; SET LOCAL jit = off";

/// One snapshot for several statements.
const BEGIN_SNAPSHOT: &str =
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL idle_in_transaction_session_timeout = '15s'";

/// The same for whoever looks on: the server ends what takes longer, whether or not anybody still waits for it.
const BEGIN_WATCHING: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL idle_in_transaction_session_timeout = '15s'; SET LOCAL statement_timeout = '10s'";

/// How long a connection is kept at hand: as long as sqlx keeps any.
const KEPT_FOR: Duration = Duration::from_mins(30);

/// A pool, and how many there were before it.
struct Generation {
    number: u64,
    pool: PgPool,
    /// The connection of the transaction that was committed last, for the next. The work loop has one after the other, and here each
    /// of its statements has been prepared and planned. The pool would ask it whether it is well, and then hand out the one
    /// that has been idle for longest, so that each of them has to learn all that.
    kept: Option<Held>,
}

/// The connections of one process.
pub(super) struct Connections {
    options: PgConnectOptions,
    patience: Duration,
    /// Whether they are one, for whoever looks on.
    watching: bool,
    /// Whether a statement is prepared under a name, once a connection. With `statement-cache-capacity=0` it is not.
    named: bool,
    current: Mutex<Generation>,
}

impl Connections {
    /// Connects once, so that what is wrong shows at once and in the server's own words.
    pub(super) async fn open(url: &DatabaseUrl, patience: Duration, watching: bool) -> Result<Arc<Self>, StoreError> {
        let options = PgConnectOptions::from_str(url.expose())?
            .application_name("reprovisiond")
            // Nothing here is a float, and PgBouncer refuses the parameter.
            .extra_float_digits(None);
        let first = timeout(CONNECT.min(patience), options.connect()).await;
        first.map_err(|_| silent("a new connection", CONNECT.min(patience)))??.close().await?;
        let current = Mutex::new(Generation { number: 0, pool: pool(&options, patience, watching), kept: None });
        Ok(Arc::new(Self { named: named(url), options, patience, watching, current }))
    }

    /// A transaction that ends within `database.patience`.
    pub(super) async fn begin(self: &Arc<Self>) -> Result<Tx, StoreError> {
        let deadline = Instant::now() + self.patience;
        self.begin_with(BEGIN, Some(deadline)).await
    }

    /// A transaction of a command: it takes as long as it takes.
    pub(super) async fn begin_at_leisure(self: &Arc<Self>) -> Result<Tx, StoreError> {
        self.begin_with(BEGIN, None).await
    }

    /// A transaction that reads only, and sees one moment: of a command, or of whoever looks on while a daemon works.
    pub(super) async fn begin_snapshot(self: &Arc<Self>) -> Result<Tx, StoreError> {
        if self.watching {
            return self.begin_with(BEGIN_WATCHING, Some(Instant::now() + self.patience)).await;
        }
        self.begin_with(BEGIN_SNAPSHOT, None).await
    }

    async fn begin_with(self: &Arc<Self>, begin: &'static str, deadline: Option<Instant>) -> Result<Tx, StoreError> {
        let begun_by = deadline.unwrap_or_else(|| Instant::now() + self.patience);
        loop {
            let (generation, pool, kept) = self.current();
            let idle = kept.is_some() || pool.num_idle() > 0;
            // Held beyond the end of its time: the pool is replaced before its connection comes back to it.
            let mut attempt = pin!(Held::begin(kept, &pool, begin));
            match timeout_at(begun_by, &mut attempt).await {
                Ok(Ok(held)) => {
                    let lent = Lent { by: Arc::clone(self), generation, until: deadline };
                    return Ok(Tx(Session { held, lent }));
                }
                // An idle connection had died, which shows in its first use. Nothing was begun on it: another one will do.
                Ok(Err(error)) if idle && died(&error) => {}
                Ok(Err(sqlx::Error::PoolTimedOut)) => {
                    self.replace(generation);
                    return Err(self.why_no_connection().await);
                }
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => {
                    self.replace(generation);
                    return Err(silent("BEGIN", self.patience));
                }
            }
        }
    }

    /// The pool of now, and the connection that is kept, if no other has it.
    fn current(&self) -> (u64, PgPool, Option<Held>) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        (current.number, current.pool.clone(), current.kept.take())
    }

    /// Keeps a connection on which nothing is under way. Who only looks on does so now and then, and needs none meanwhile.
    fn keep(&self, held: Held, generation: u64) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.number == generation && !self.watching && held.since.elapsed() < KEPT_FOR {
            current.kept.get_or_insert(held);
        }
    }

    /// Puts a new pool in the place of this one, unless that has been done.
    fn replace(&self, generation: u64) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.number != generation {
            return;
        }
        let pool = pool(&self.options, self.patience, self.watching);
        let next = Generation { number: generation + 1, pool, kept: None };
        let Generation { pool: old, kept, .. } = std::mem::replace(&mut *current, next);
        // Marked at once: what is still in use is closed when it comes back, not asked whether it is well.
        drop(old.close());
        drop(kept);
        let patience = self.patience;
        tokio::spawn(async move { timeout(patience, old.close()).await });
    }

    /// The pool says only that time ran out while the server refused, or was starting.
    async fn why_no_connection(&self) -> StoreError {
        match timeout(WHY.min(self.patience), self.options.connect()).await {
            Ok(Ok(connection)) => {
                drop(connection);
                StoreError::Unavailable("all connections of this process are busy".to_owned())
            }
            Ok(Err(error)) => error.into(),
            Err(_) => silent("a new connection", CONNECT.min(self.patience)),
        }
    }

    /// A pool of one, for the connection that listens. `None`: behind a pooler LISTEN hears nothing, and would stay behind
    /// on a connection that serves others.
    pub(super) fn for_listening(&self) -> Option<PgPool> {
        // Its one statement that can be slow is the farewell to a server that has vanished.
        let options = self.options.clone().disable_statement_logging();
        self.named.then(|| pool_of(1, &options, self.patience))
    }

    /// What one answer may take.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// Whether statements have names, which outlive their transaction.
    pub(super) fn named(&self) -> bool {
        self.named
    }

    /// Closes every connection, as far as they let themselves be closed.
    pub(super) async fn close(&self) {
        let (_, pool, kept) = self.current();
        drop(kept);
        let _ = timeout(WHY, pool.close()).await;
    }
}

fn pool(options: &PgConnectOptions, patience: Duration, watching: bool) -> PgPool {
    pool_of(if watching { 1 } else { CONNECTIONS }, options, patience)
}

fn pool_of(connections: u32, options: &PgConnectOptions, patience: Duration) -> PgPool {
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(CONNECT.min(patience))
        .idle_timeout(Duration::from_mins(10))
        // BEGIN is the test, and saves its round trip.
        .test_before_acquire(false)
        .connect_lazy_with(options.clone())
}

/// Whether statements are to be prepared under a name. sqlx gives them one even where it keeps none of them.
fn named(url: &DatabaseUrl) -> bool {
    let unnamed = |url: Url| url.query_pairs().any(|(name, value)| name == "statement-cache-capacity" && value == "0");
    !Url::parse(url.expose()).is_ok_and(unnamed)
}

/// Whether the connection is no more, and so never began anything.
fn died(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) => true,
        sqlx::Error::Database(said) => {
            said.code().is_some_and(|code| code.starts_with("57P") || code.starts_with("08"))
        }
        _ => false,
    }
}

fn silent(what: &str, patience: Duration) -> StoreError {
    StoreError::Unavailable(format!("no answer to {what} within {patience:?}"))
}

/// A connection that has been taken out of its pool. What was begun on it and not committed is rolled back when it is dropped.
struct Held {
    connection: PoolConnection<Postgres>,
    since: Instant,
}

impl Held {
    /// Begins a transaction on the connection that was kept, or on one of the pool's.
    async fn begin(kept: Option<Self>, pool: &PgPool, begin: &'static str) -> Result<Self, sqlx::Error> {
        let mut held = match kept {
            Some(kept) => kept,
            None => Self { connection: pool.acquire().await?, since: Instant::now() },
        };
        PgTransactionManager::begin(&mut held.connection, Some(SqlStr::from_static(begin))).await?;
        Ok(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        PgTransactionManager::start_rollback(&mut self.connection);
    }
}

/// Whose a transaction's connection is, and how long its verb's patience lasts.
struct Lent {
    by: Arc<Connections>,
    generation: u64,
    /// `None`: for ever.
    until: Option<Instant>,
}

impl Lent {
    async fn hold<T>(&self, step: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
        match self.until {
            None => step.await,
            Some(until) => {
                // Held beyond the end of its time: the pool is replaced before the connection comes back to it.
                let mut step = pin!(step);
                timeout_at(until, &mut step).await.unwrap_or_else(|_| Err(self.passed()))
            }
        }
    }

    fn passed(&self) -> sqlx::Error {
        self.by.replace(self.generation);
        let patience = self.by.patience;
        let message =
            format!("no answer within {patience:?}: the server, or the network on the way to it, has gone silent");
        sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, message))
    }
}

/// A transaction; it rolls back if it is dropped.
pub(super) struct Tx(Session);

impl Tx {
    pub(super) async fn commit(self) -> Result<(), StoreError> {
        let Session { mut held, lent } = self.0;
        lent.hold(PgTransactionManager::commit(&mut held.connection)).await?;
        lent.by.keep(held, lent.generation);
        Ok(())
    }
}

impl Deref for Tx {
    type Target = Session;
    fn deref(&self) -> &Session {
        &self.0
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut Session {
        &mut self.0
    }
}

/// What statements run on: the connection of a transaction, as long as its patience lasts.
pub(super) struct Session {
    held: Held,
    lent: Lent,
}

impl Session {
    /// For what sqlx itself has to say to the server.
    pub(super) fn raw(&mut self) -> &mut PgConnection {
        &mut self.held.connection
    }

    fn prepared<Q>(&self, query: Q) -> Prepared<Q> {
        Prepared { query, named: self.lent.by.named }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session")
    }
}

type Step = Result<Either<PgQueryResult, PgRow>, sqlx::Error>;

impl<'c> Executor<'c> for &'c mut Session {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Step>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let query = self.prepared(query);
        let Session { held, lent } = self;
        let lent = &*lent;
        let steps = held.connection.fetch_many(query);
        let Some(until) = lent.until else { return steps };
        stream::unfold(Some(steps), move |open| async move {
            let mut steps = open?;
            match timeout_at(until, steps.next()).await {
                Ok(step) => step.map(|step| (step, Some(steps))),
                Err(_) => Some((Err(lent.passed()), None)),
            }
        })
        .boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let query = self.prepared(query);
        Box::pin(self.lent.hold(self.held.connection.fetch_optional(query)))
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, sqlx::Error>>
    where
        'c: 'e,
    {
        Box::pin(self.lent.hold(self.held.connection.prepare_with(sql, parameters)))
    }

    // Asked for by sqlx's macros only, which are not used here.
    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, sqlx::Error>>
    where
        'c: 'e,
    {
        Box::pin(self.lent.hold(self.held.connection.describe(sql)))
    }
}

/// A query whose statement has a name or not, as the URL says.
struct Prepared<Q> {
    query: Q,
    named: bool,
}

impl<'q, Q: Execute<'q, Postgres>> Execute<'q, Postgres> for Prepared<Q> {
    fn sql(self) -> SqlStr {
        self.query.sql()
    }

    fn statement(&self) -> Option<&PgStatement> {
        self.query.statement()
    }

    fn take_arguments(&mut self) -> Result<Option<PgArguments>, BoxDynError> {
        self.query.take_arguments()
    }

    fn persistent(&self) -> bool {
        self.named && self.query.persistent()
    }
}
