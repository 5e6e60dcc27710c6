//! What is followed after Graph has accepted it, on Postgres.

use std::time::Duration;

use sqlx::Row;
use uuid::Uuid;

use super::connections::Tx;
use super::{sql, texts};
use crate::domain::completion::{Judgement, Watch};
use crate::domain::id::TenantName;
use crate::store::completions::{
    ClaimedCompletions, CompletionClaim, Judgements, NOT_FOLLOWED_ANY_MORE, Spent, spent, watch,
};
use crate::store::{StoreError, rows};

pub(super) async fn track(mut tx: Tx, names: &[TenantName], first_after: Option<Duration>) -> Result<u64, StoreError> {
    let names = texts(names);
    let Some(first_after) = first_after else {
        sqlx::query(sql::UNTRACK_TENANTS).bind(&names).execute(&mut *tx).await?;
        let open: Vec<i64> = sqlx::query_scalar(sql::WATCHES_OF_TENANTS).bind(&names).fetch_all(&mut *tx).await?;
        let ended = sqlx::query(sql::UNTRACK_WATCHES).bind(&open).bind(NOT_FOLLOWED_ANY_MORE).execute(&mut *tx).await?;
        sqlx::query(sql::LEAVE_WATCHES).bind(&open).execute(&mut *tx).await?;
        tx.commit().await?;
        return Ok(ended.rows_affected());
    };
    sqlx::query(sql::TRACK_TENANTS).bind(names).bind(rows::millis(first_after)).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(0)
}

pub(super) async fn claim(mut tx: Tx, claim: &CompletionClaim<'_>) -> Result<ClaimedCompletions, StoreError> {
    let tenant = claim.tenant.as_str();
    let Some(row) = sqlx::query(sql::COMPLETION_BUDGET).bind(tenant).fetch_optional(&mut *tx).await? else {
        return Ok(ClaimedCompletions::default());
    };
    let spent: Spent = spent!(row);
    let (mut watches, mut charged) = (Vec::new(), None);
    let allowed = spent.allows(claim);
    if allowed > 0 {
        let due = sqlx::query(sql::DUE_WATCHES).bind(tenant).bind(i64::from(allowed)).fetch_all(&mut *tx).await?;
        watches = due.iter().map(|row| Ok(watch!(row, Uuid))).collect::<Result<Vec<Watch>, StoreError>>()?;
    }
    if !watches.is_empty() {
        let requests: Vec<i64> = watches.iter().map(|watch| watch.request_id.0).collect();
        sqlx::query(sql::PUT_OFF_WATCHES).bind(&requests).bind(rows::millis(claim.put_off)).execute(&mut *tx).await?;
        let next = spent.charged(claim, watches.len());
        sqlx::query(sql::CHARGE_READS).bind(tenant).bind(next).execute(&mut *tx).await?;
        charged = Some(next);
    }
    let next_due = sqlx::query_scalar(sql::NEXT_LOOK).bind(tenant).fetch_one(&mut *tx).await?;
    tx.commit().await?;
    Ok(ClaimedCompletions { watches, look_again_in: spent.look_again_in(claim, charged, next_due) })
}

pub(super) async fn record(
    mut tx: Tx,
    tenant: &TenantName,
    judged: &[(Watch, Judgement)],
    leave_alone: Option<Duration>,
) -> Result<u64, StoreError> {
    let columns = Judgements::of(judged);
    // Before any watch's lock, as in every verb.
    if let Some(time) = leave_alone {
        sqlx::query(sql::WAIT_WITH_READS).bind(tenant.as_str()).bind(rows::millis(time)).execute(&mut *tx).await?;
    }
    let requests: Vec<i64> = judged.iter().map(|(watch, _)| watch.request_id.0).collect();
    sqlx::query(sql::LOCK_WATCHES).bind(&requests).execute(&mut *tx).await?;
    let rows = &columns.ended;
    let ended: Vec<i64> = sqlx::query_scalar(sql::RECORD_COMPLETIONS)
        .bind(&rows.request_id)
        .bind(&rows.state)
        .bind(&rows.started_at)
        .bind(&rows.ended_at)
        .bind(&rows.took_seconds)
        .bind(&rows.detail)
        .bind(&rows.evidence)
        .fetch_all(&mut *tx)
        .await?;
    sqlx::query(sql::LEAVE_WATCHES).bind(&ended).execute(&mut *tx).await?;
    sqlx::query(sql::LOOK_AGAIN)
        .bind(&columns.again_request_id)
        .bind(&columns.again_after_ms)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(ended.len() as u64)
}
