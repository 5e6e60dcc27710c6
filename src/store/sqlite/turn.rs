//! The statements of a turn on SQLite.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, Sqlite, SqliteConnection, Transaction};
use uuid::fmt::Hyphenated;

use super::{SWEEP, instant, precise, sql, text};
use crate::domain::id::CallId;
use crate::domain::lifecycle::{CallState, TenantEffect};
use crate::domain::plan::{Entry, Facts, RateBudget};
use crate::store::late::{self, LateResults, SettledBefore};
use crate::store::rows::{self, QueueColumns, ResultColumns, json};
use crate::store::turn::{self, Completed, Steps};
use crate::store::{Answer, Claim, Decide, Intent, StoreError, Turned};

/// The whole of a turn.
pub(super) async fn take(
    tx: Transaction<'static, Sqlite>,
    answers: &[Answer<'_>],
    claim: Option<(&Claim<'_>, &Decide<'_>)>,
) -> Result<Turned, StoreError> {
    let mut steps = SqliteSteps(tx);
    let turned = turn::take(&mut steps, answers, claim).await?;
    steps.0.commit().await?;
    Ok(turned)
}

struct SqliteSteps(Transaction<'static, Sqlite>);

#[async_trait]
impl Steps for SqliteSteps {
    async fn complete(&mut self, answers: &[Answer<'_>], from: CallState) -> Result<Vec<Completed>, StoreError> {
        let row = |answer: &Answer<'_>| {
            let (recording, evidence) = (answer.recording, answer.evidence);
            let storable = |text: &Option<String>| text.as_deref().map(rows::storable);
            serde_json::json!([
                recording.call_id,
                recording.state.as_str(),
                evidence.http_status,
                storable(&evidence.graph_request_id),
                evidence.graph_date.map(instant),
                storable(&evidence.error_code),
                storable(&evidence.error_message),
                storable(&evidence.response_body),
                rows::surplus(recording),
            ])
        };
        let completed = sqlx::query(sql::COMPLETE_CALLS)
            .bind(json(answers.iter().map(row)))
            .bind(from.as_str())
            .fetch_all(&mut *self.0)
            .await?;
        completed.iter().map(|row| Ok(rows::completed!(row, Hyphenated))).collect()
    }

    async fn tenant_effect(&mut self, tenant: &str, effect: &TenantEffect) -> Result<(), StoreError> {
        tenant_effect(&mut self.0, tenant, effect).await
    }

    async fn open_entries(&mut self, call: CallId) -> Result<Vec<i64>, StoreError> {
        Ok(sqlx::query_scalar(sql::OPEN_ENTRIES).bind(text(call.0)).fetch_all(&mut *self.0).await?)
    }

    async fn settled_before(&mut self, call: CallId, open: &[i64]) -> Result<Vec<SettledBefore>, StoreError> {
        let open = json(open.iter());
        let found = sqlx::query(sql::SETTLED_BEFORE).bind(text(call.0)).bind(open).fetch_all(&mut *self.0).await?;
        found.iter().map(|row| Ok(late::settled_before!(row))).collect()
    }

    async fn late_results(&mut self, call: CallId, rows: &LateResults) -> Result<u64, StoreError> {
        let written = sqlx::query(sql::LATE_RESULTS).bind(text(call.0)).bind(rows.json()).execute(&mut *self.0).await?;
        Ok(written.rows_affected())
    }

    async fn results(&mut self, rows: &ResultColumns) -> Result<u64, StoreError> {
        Ok(sqlx::query(sql::RECORD_RESULTS).bind(rows.json()).execute(&mut *self.0).await?.rows_affected())
    }

    async fn leave_queue(&mut self, requests: &[i64]) -> Result<u64, StoreError> {
        let requests = json(requests.iter());
        Ok(sqlx::query(sql::LEAVE_QUEUE).bind(requests).execute(&mut *self.0).await?.rows_affected())
    }

    async fn keep_in_queue(&mut self, rows: &QueueColumns) -> Result<u64, StoreError> {
        Ok(sqlx::query(sql::KEEP_IN_QUEUE).bind(rows.json()).execute(&mut *self.0).await?.rows_affected())
    }

    /// BEGIN IMMEDIATE is the lock.
    async fn lock_tenant(&mut self, _: &str, _: bool) -> Result<bool, StoreError> {
        Ok(true)
    }

    async fn facts(&mut self, tenant: &str) -> Result<Option<Facts>, StoreError> {
        let row = sqlx::query(sql::FACTS).bind(json([tenant].iter())).fetch_optional(&mut *self.0).await?;
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
        let now = instant(now);
        entries(&sqlx::query(sql::OVERDUE).bind(tenant).bind(SWEEP).bind(now).fetch_all(&mut *self.0).await?)
    }

    async fn intend(
        &mut self,
        claim: &Claim<'_>,
        intents: &[Intent],
        budget: Option<&RateBudget>,
    ) -> Result<u64, StoreError> {
        let call = |intent: &Intent| {
            serde_json::json!([
                intent.call_id,
                intent.entries.iter().map(|entry| entry.device).collect::<Vec<_>>(),
                intent.entries.iter().map(|entry| entry.request_id).collect::<Vec<_>>(),
                intent.digest,
                intent.cloud_pcs,
            ])
        };
        sqlx::query(sql::INSERT_INTENTS)
            .bind(claim.tenant.as_str())
            .bind(claim.action.as_str())
            .bind(text(claim.worker.0))
            .bind(json(intents.iter().map(call)))
            .execute(&mut *self.0)
            .await?;
        if let Some(budget) = budget {
            sqlx::query(sql::CHARGE_RATE)
                .bind(claim.tenant.as_str())
                .bind(precise(budget.next_call_at))
                .bind(i64::from(budget.pace.thousandths))
                .bind(budget.pace.since.map(precise))
                .execute(&mut *self.0)
                .await?;
        }
        let goes = |intent: &Intent| {
            let call = intent.call_id;
            intent.entries.iter().map(move |entry| (entry.request_id, call)).collect::<Vec<_>>()
        };
        let go = json(intents.iter().flat_map(goes));
        Ok(sqlx::query(sql::START_SENDING).bind(go).execute(&mut *self.0).await?.rows_affected())
    }

    async fn expire(&mut self, requests: &[i64]) -> Result<u64, StoreError> {
        let requests = json(requests.iter());
        Ok(sqlx::query(sql::EXPIRE_RESULTS).bind(requests).execute(&mut *self.0).await?.rows_affected())
    }
}

fn entries(found: &[SqliteRow]) -> Result<Vec<Entry>, StoreError> {
    found.iter().map(|row| Ok(rows::entry!(row))).collect()
}

pub(super) async fn tenant_effect(
    tx: &mut SqliteConnection,
    tenant: &str,
    effect: &TenantEffect,
) -> Result<(), StoreError> {
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
