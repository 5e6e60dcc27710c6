//! The statements of a person's order on SQLite.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use sqlx::{Row, Sqlite, Transaction};
use uuid::fmt::Hyphenated;

use super::sql;
use crate::domain::id::TenantName;
use crate::domain::lifecycle::{Bucket, EntryState};
use crate::domain::operator::{Order, ScopeKind};
use crate::store::StoreError;
use crate::store::operator::{
    self, Actions, Counts, Found, OrderedResults, Outcome, PauseBefore, Steps, Subjects, counts, found, pause_before,
};
use crate::store::rows::{self, json};

/// The whole of an order.
pub(super) async fn carry_out(tx: Transaction<'static, Sqlite>, order: &Order) -> Result<Outcome, StoreError> {
    let mut steps = SqliteSteps(tx);
    let outcome = operator::carry_out(&mut steps, order).await?;
    steps.0.commit().await?;
    Ok(outcome)
}

struct SqliteSteps(Transaction<'static, Sqlite>);

#[async_trait]
impl Steps for SqliteSteps {
    async fn lock_tenants(&mut self, only: Option<&TenantName>) -> Result<Vec<String>, StoreError> {
        let only = only.map(TenantName::as_str);
        Ok(sqlx::query_scalar(sql::LOCK_TENANTS).bind(only).fetch_all(&mut *self.0).await?)
    }

    async fn known_devices(&mut self, devices: &[String]) -> Result<HashSet<String>, StoreError> {
        let known: Vec<String> =
            sqlx::query_scalar(sql::KNOWN_DEVICES).bind(json(devices.iter())).fetch_all(&mut *self.0).await?;
        Ok(known.into_iter().collect())
    }

    async fn known_requests(&mut self, requests: &[i64]) -> Result<HashMap<i64, Option<Bucket>>, StoreError> {
        let known = sqlx::query_as(sql::KNOWN_REQUESTS).bind(json(requests.iter())).fetch_all(&mut *self.0).await?;
        operator::known(known)
    }

    async fn entries(&mut self, of: &Subjects, states: &[EntryState]) -> Result<Vec<Found>, StoreError> {
        let rows = sqlx::query(sql::SCOPE_ENTRIES)
            .bind(of.kind.as_str())
            .bind(json(of.names.iter()))
            .bind(json(of.requests.iter()))
            .bind(json(states.iter()))
            .fetch_all(&mut *self.0)
            .await?;
        rows.iter().map(|row| Ok(found!(row, Hyphenated))).collect()
    }

    async fn counts(&mut self, of: &Subjects) -> Result<HashMap<String, Counts>, StoreError> {
        let rows = sqlx::query(sql::SCOPE_COUNTS)
            .bind(of.kind.as_str())
            .bind(json(of.names.iter()))
            .bind(json(of.requests.iter()))
            .fetch_all(&mut *self.0)
            .await?;
        rows.iter().map(|row| Ok((row.try_get("subject")?, counts!(row)))).collect()
    }

    async fn paused(&mut self, of: &Subjects) -> Result<HashMap<String, PauseBefore>, StoreError> {
        let rows =
            sqlx::query(sql::PAUSED).bind(of.kind.as_str()).bind(json(of.names.iter())).fetch_all(&mut *self.0).await?;
        rows.iter().map(|row| Ok((row.try_get("subject")?, pause_before!(row)))).collect()
    }

    async fn pause(&mut self, of: &Subjects, order: &Order) -> Result<(), StoreError> {
        let query = match of.kind {
            ScopeKind::All | ScopeKind::Tenant => sqlx::query(sql::PAUSE_TENANTS),
            ScopeKind::Device | ScopeKind::Request => sqlx::query(sql::PAUSE_SUBJECTS).bind(of.kind.as_str()),
        };
        let (by, reason) = (rows::storable(&order.taken_by), rows::storable(&order.reason));
        query.bind(json(of.names.iter())).bind(by).bind(reason).execute(&mut *self.0).await?;
        Ok(())
    }

    async fn resume(&mut self, of: &Subjects) -> Result<(), StoreError> {
        let query = match of.kind {
            ScopeKind::All | ScopeKind::Tenant => sqlx::query(sql::RESUME_TENANTS),
            ScopeKind::Device | ScopeKind::Request => sqlx::query(sql::RESUME_SUBJECTS).bind(of.kind.as_str()),
        };
        query.bind(json(of.names.iter())).execute(&mut *self.0).await?;
        Ok(())
    }

    async fn record_actions(&mut self, actions: &Actions<'_>) -> Result<HashMap<Option<String>, i64>, StoreError> {
        let ids: Vec<(i64, Option<String>)> = sqlx::query_as(sql::RECORD_ACTIONS)
            .bind(actions.order.act.as_str())
            .bind(actions.scope.as_str())
            .bind(actions.order.act.decision().map(|decision| decision.as_str()))
            .bind(rows::storable(&actions.order.taken_by))
            .bind(rows::storable(&actions.order.reason))
            .bind(json(actions.subjects.iter()))
            .fetch_all(&mut *self.0)
            .await?;
        Ok(ids.into_iter().map(|(id, subject)| (subject, id)).collect())
    }

    async fn record_results(&mut self, results: &OrderedResults) -> Result<u64, StoreError> {
        let written = sqlx::query(sql::ORDERED_RESULTS)
            .bind(json(results.requests.iter().zip(&results.actions)))
            .bind(results.bucket.as_str())
            .bind(results.is_final())
            .bind(&results.detail)
            .execute(&mut *self.0)
            .await?;
        Ok(written.rows_affected())
    }

    async fn leave_queue(&mut self, requests: &[i64]) -> Result<u64, StoreError> {
        Ok(sqlx::query(sql::LEAVE_QUEUE).bind(json(requests.iter())).execute(&mut *self.0).await?.rows_affected())
    }

    async fn retry(&mut self, requests: &[i64], wait_reason: &str) -> Result<u64, StoreError> {
        let queued =
            sqlx::query(sql::RETRY_ENTRIES).bind(json(requests.iter())).bind(wait_reason).execute(&mut *self.0).await?;
        Ok(queued.rows_affected())
    }

    async fn wake(&mut self) -> Result<(), StoreError> {
        // The commit is noticed.
        Ok(())
    }
}
