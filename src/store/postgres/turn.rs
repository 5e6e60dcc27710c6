//! The statements of a turn on Postgres.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::connections::{Session, Tx};
use super::{SWEEP, sql};
use crate::domain::id::CallId;
use crate::domain::lifecycle::{CallState, TenantEffect};
use crate::domain::plan::{Entry, Facts, RateBudget};
use crate::store::late::{self, LateResults, SettledBefore};
use crate::store::rows::{self, QueueColumns, ResultColumns};
use crate::store::turn::{self, Completed, Steps};
use crate::store::{Answer, Claim, Decide, Intent, StoreError, Turned};

/// The whole of a turn.
pub(super) async fn take(
    tx: Tx,
    answers: &[Answer<'_>],
    claim: Option<(&Claim<'_>, &Decide<'_>)>,
) -> Result<Turned, StoreError> {
    let mut steps = PostgresSteps(tx);
    let turned = turn::take(&mut steps, answers, claim).await?;
    steps.0.commit().await?;
    Ok(turned)
}

struct PostgresSteps(Tx);

#[async_trait]
impl Steps for PostgresSteps {
    async fn complete(&mut self, answers: &[Answer<'_>], from: CallState) -> Result<Vec<Completed>, StoreError> {
        macro_rules! column {
            (|$answer:ident| $value:expr) => {
                answers.iter().map(|$answer| $value).collect::<Vec<_>>()
            };
        }
        let completed = sqlx::query(sql::COMPLETE_CALLS)
            .bind(column!(|a| a.recording.call_id.0))
            .bind(column!(|a| a.recording.state.as_str()))
            .bind(column!(|a| a.evidence.http_status.map(i32::from)))
            .bind(column!(|a| a.evidence.graph_request_id.as_deref().map(rows::storable)))
            .bind(column!(|a| a.evidence.graph_date))
            .bind(column!(|a| a.evidence.error_code.as_deref().map(rows::storable)))
            .bind(column!(|a| a.evidence.error_message.as_deref().map(rows::storable)))
            .bind(column!(|a| a.evidence.response_body.as_deref().map(rows::storable)))
            .bind(column!(|a| rows::surplus(a.recording)))
            .bind(from.as_str())
            .fetch_all(&mut *self.0)
            .await?;
        completed.iter().map(|row| Ok(rows::completed!(row, Uuid))).collect()
    }

    async fn tenant_effect(&mut self, tenant: &str, effect: &TenantEffect) -> Result<(), StoreError> {
        tenant_effect(&mut self.0, tenant, effect).await
    }

    async fn open_entries(&mut self, call: CallId) -> Result<Vec<i64>, StoreError> {
        Ok(sqlx::query_scalar(sql::OPEN_ENTRIES).bind(call.0).fetch_all(&mut *self.0).await?)
    }

    async fn settled_before(&mut self, call: CallId, open: &[i64]) -> Result<Vec<SettledBefore>, StoreError> {
        let found = sqlx::query(sql::SETTLED_BEFORE).bind(call.0).bind(open).fetch_all(&mut *self.0).await?;
        found.iter().map(|row| Ok(late::settled_before!(row))).collect()
    }

    async fn late_results(&mut self, call: CallId, rows: &LateResults) -> Result<u64, StoreError> {
        let written = sqlx::query(sql::LATE_RESULTS)
            .bind(call.0)
            .bind(&rows.request_id)
            .bind(&rows.device)
            .bind(&rows.attempt)
            .bind(&rows.bucket)
            .bind(&rows.detail)
            .execute(&mut *self.0)
            .await?;
        Ok(written.rows_affected())
    }

    async fn results(&mut self, rows: &ResultColumns) -> Result<u64, StoreError> {
        let written = sqlx::query(sql::RECORD_RESULTS)
            .bind(&rows.request_id)
            .bind(&rows.bucket)
            .bind(&rows.source)
            .bind(&rows.is_final)
            .bind(&rows.detail)
            .bind(&rows.charge)
            .bind(uuids(&rows.call_id))
            .execute(&mut *self.0)
            .await?;
        Ok(written.rows_affected())
    }

    async fn leave_queue(&mut self, requests: &[i64]) -> Result<u64, StoreError> {
        Ok(sqlx::query(sql::LEAVE_QUEUE).bind(requests).execute(&mut *self.0).await?.rows_affected())
    }

    async fn keep_in_queue(&mut self, rows: &QueueColumns) -> Result<u64, StoreError> {
        let changed = sqlx::query(sql::KEEP_IN_QUEUE)
            .bind(&rows.request_id)
            .bind(&rows.state)
            .bind(&rows.delay_ms)
            .bind(&rows.wait_reason)
            .bind(&rows.charge)
            .bind(&rows.max_batch)
            .bind(uuids(&rows.call_id))
            .execute(&mut *self.0)
            .await?;
        Ok(changed.rows_affected())
    }

    async fn lock_tenant(&mut self, tenant: &str, waits: bool) -> Result<bool, StoreError> {
        let statement = if waits { sql::LOCK_TENANT } else { sql::TRY_LOCK_TENANT };
        let locked = sqlx::query(statement).bind(tenant).fetch_optional(&mut *self.0).await?;
        // A tenant that is not there is found missing by who looks for its facts.
        Ok(waits || locked.is_some())
    }

    async fn facts(&mut self, tenant: &str) -> Result<Option<Facts>, StoreError> {
        let row = sqlx::query(sql::FACTS_OF).bind(tenant).fetch_optional(&mut *self.0).await?;
        row.map(|row| Ok(rows::facts!(row))).transpose()
    }

    async fn promote_due(&mut self, tenant: &str) -> Result<(), StoreError> {
        sqlx::query(sql::PROMOTE_DUE).bind(tenant).bind(SWEEP).execute(&mut *self.0).await?;
        Ok(())
    }

    async fn due(&mut self, tenant: &str, fetch: usize) -> Result<Vec<Entry>, StoreError> {
        let fetch = i64::try_from(fetch).unwrap_or(i64::MAX);
        entries(&sqlx::query(sql::DUE).bind(tenant).bind(fetch).fetch_all(&mut *self.0).await?)
    }

    async fn overdue(&mut self, tenant: &str, now: DateTime<Utc>) -> Result<Vec<Entry>, StoreError> {
        entries(&sqlx::query(sql::OVERDUE).bind(tenant).bind(SWEEP).bind(now).fetch_all(&mut *self.0).await?)
    }

    async fn intend(
        &mut self,
        claim: &Claim<'_>,
        intents: &[Intent],
        budget: Option<&RateBudget>,
    ) -> Result<u64, StoreError> {
        let (mut budget, mut gone) = (budget, 0);
        for intent in intents {
            // With the first of them.
            let budget = budget.take();
            let done = sqlx::query(sql::INTEND)
                .bind(intent.call_id.0)
                .bind(claim.tenant.as_str())
                .bind(claim.action.as_str())
                .bind(claim.worker.0)
                .bind(rows::device_ids(&intent.entries))
                .bind(rows::request_ids(&intent.entries))
                .bind(&intent.digest)
                .bind(rows::cloud_pc_ids(intent))
                .bind(budget.map(|budget| budget.next_call_at))
                .bind(budget.map(|budget| i64::from(budget.pace.thousandths)))
                .bind(budget.and_then(|budget| budget.pace.since))
                .execute(&mut *self.0)
                .await?;
            gone += done.rows_affected();
        }
        Ok(gone)
    }

    async fn expire(&mut self, requests: &[i64]) -> Result<u64, StoreError> {
        Ok(sqlx::query(sql::EXPIRE_RESULTS).bind(requests).execute(&mut *self.0).await?.rows_affected())
    }
}

fn uuids(calls: &[CallId]) -> Vec<Uuid> {
    calls.iter().map(|call| call.0).collect()
}

fn entries(found: &[PgRow]) -> Result<Vec<Entry>, StoreError> {
    found.iter().map(|row| Ok(rows::entry!(row))).collect()
}

pub(super) async fn tenant_effect(tx: &mut Session, tenant: &str, effect: &TenantEffect) -> Result<(), StoreError> {
    let query = match effect {
        TenantEffect::None => return Ok(()),
        TenantEffect::Clear => sqlx::query(sql::CLEAR_TENANT).bind(tenant),
        TenantEffect::Caution => sqlx::query(sql::CAUTION_TENANT).bind(tenant),
        TenantEffect::Wait { delay, code, reason } => sqlx::query(sql::DEFER_TENANT)
            .bind(tenant)
            .bind(rows::millis(*delay))
            .bind(code.as_str())
            .bind(rows::storable(reason)),
        TenantEffect::Block { code, reason, probe_after } => sqlx::query(sql::BLOCK_TENANT)
            .bind(tenant)
            .bind(rows::millis(*probe_after))
            .bind(code.as_str())
            .bind(rows::storable(reason)),
    };
    query.execute(tx).await?;
    Ok(())
}
