//! What holds for a whole tenant: waits, blocks, caution.

use std::time::Duration;

use reprovisiond::domain::id::RequestId;
use reprovisiond::domain::lifecycle::{BlockCode, Bucket, CallState, Recording, TenantEffect, WaitCode};
use reprovisiond::domain::plan::TenantState;
use reprovisiond::store::Evidence;

use super::{Backend, Db, HOUR, ends, in_doubt, record, requeue, tenant};
use crate::support::on_both;

impl Db {
    async fn tenant(&self) -> (TenantState, u32) {
        let facts = self.store.facts(&[tenant()]).await.unwrap().remove(0).1;
        (facts.tenant, facts.waits_in_a_row)
    }

    async fn defer(&self, effect: TenantEffect) {
        self.store.defer_tenant(&tenant(), &effect).await.unwrap();
    }

    /// The database's time so many seconds from now, as a literal.
    async fn then(&self, seconds: i64) -> String {
        format!("'{}'", self.sql(&format!("SELECT {}", self.at(seconds))).await)
    }

    /// Whether the tenant's column holds a time not before `after`, and at most a minute beyond so many seconds from now.
    async fn is_ahead(&self, column: &str, seconds: i64, after: &str) -> bool {
        let sql = format!(
            "SELECT count(*) FROM tenants WHERE {column} >= {} AND {column} <= {}",
            after,
            self.at(seconds + 60)
        );
        self.sql(&sql).await == "1"
    }
}

fn wait(delay: Duration, code: WaitCode) -> TenantEffect {
    TenantEffect::Wait { delay, code, reason: format!("seen {code}") }
}

fn block() -> TenantEffect {
    TenantEffect::Block { code: BlockCode::Forbidden, reason: "grant it".to_owned(), probe_after: HOUR }
}

const WAIT: &str = "SELECT wait_code, wait_reason, waits_in_a_row FROM tenants";
const BLOCK: &str = "SELECT block_code, block_reason, blocked_at IS NULL, probe_at IS NULL FROM tenants";

on_both! {
    async fn a_wait_lasts_at_least_its_time_and_a_shorter_one_that_comes_later_never_shortens_it(scratch: Scratch) {
        let db = Db::new(scratch).await;
        let (two_hours, hour) = (db.then(7200).await, db.then(3600).await);
        db.defer(wait(HOUR, WaitCode::Unreachable)).await;
        assert!(db.is_ahead("wait_until", 3600, &hour).await);
        assert_eq!(db.sql(WAIT).await, "unreachable|seen unreachable|1");
        db.defer(wait(HOUR * 2, WaitCode::Throttled)).await;
        db.defer(wait(Duration::ZERO, WaitCode::TokenRefused)).await;
        assert!(db.is_ahead("wait_until", 7200, &two_hours).await);
        assert_eq!(db.tenant().await.1, 3);
    }

    async fn an_answer_does_not_end_a_wait_that_still_runs_and_ends_one_that_is_over(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.defer(wait(HOUR, WaitCode::Throttled)).await;
        let before = db.sql("SELECT wait_until, wait_code, wait_reason, waits_in_a_row FROM tenants").await;
        db.defer(TenantEffect::Clear).await;
        assert_eq!(db.sql("SELECT wait_until, wait_code, wait_reason, waits_in_a_row FROM tenants").await, before);
        db.sql(&format!("UPDATE tenants SET wait_until = {}", db.at(-1))).await;
        db.defer(TenantEffect::Clear).await;
        assert_eq!(db.sql(WAIT).await, "||0");
        let (state, waits) = db.tenant().await;
        assert!(state.throttled_at.is_some(), "what it has taught about the rate stays");
        assert_eq!((TenantState { throttled_at: None, ..state }, waits), (TenantState::default(), 0));
    }

    async fn an_answer_ends_a_block_and_caution(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.defer(block()).await;
        db.defer(TenantEffect::Caution).await;
        let (state, _) = db.tenant().await;
        assert!(state.cautious && state.blocked_until.is_some());
        db.defer(TenantEffect::None).await;
        assert_eq!(db.tenant().await.0, state);
        db.defer(TenantEffect::Clear).await;
        assert_eq!(db.tenant().await, (TenantState::default(), 0));
    }

    async fn a_block_says_why_since_when_and_when_it_is_probed_and_a_restart_probes_at_once(scratch: Scratch) {
        let db = Db::new(scratch).await;
        let hour = db.then(3600).await;
        db.defer(block()).await;
        assert!(db.is_ahead("probe_at", 3600, &hour).await);
        let no = if db.scratch.backend() == Backend::Sqlite { "0" } else { "f" };
        assert_eq!(db.sql(BLOCK).await, format!("forbidden|grant it|{no}|{no}"));
        let since = "SELECT blocked_at FROM tenants";
        let first = db.sql(since).await;
        db.defer(block()).await;
        assert_eq!(db.sql(since).await, first);
        db.store.probe_blocked(&["other".parse().unwrap()]).await.unwrap();
        assert!(db.is_ahead("probe_at", 3600, &hour).await);
        db.store.probe_blocked(&[tenant()]).await.unwrap();
        let due = format!("SELECT count(*) FROM tenants WHERE probe_at <= {}", db.at(0));
        assert_eq!(db.sql(&due).await, "1");
        assert_eq!(db.sql(since).await, first);
    }

    async fn what_an_answer_means_for_the_tenant_is_committed_with_it_or_not_at_all(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.store.register_tenants(&["other".parse().unwrap()]).await.unwrap();
        db.ask(&[1]).await;
        let call = db.claim().await.remove(0).call_id;
        record(&*db.store, call, CallState::NotCarriedOut, &[(9, requeue(None))], wait(HOUR, WaitCode::Throttled)).await.unwrap_err();
        assert_eq!(db.tenant().await.1, 0);
        record(&*db.store, call, CallState::NotCarriedOut, &[(1, requeue(None))], wait(HOUR, WaitCode::Throttled)).await.unwrap();
        assert_eq!(db.sql("SELECT name, wait_code FROM tenants ORDER BY name").await, "default|throttled\nother|");
        let second = record(&*db.store, call, CallState::Answered, &[(1, ends(Bucket::Successful))], TenantEffect::Caution).await;
        second.unwrap();
        assert!(!db.tenant().await.0.cautious, "a superseded record says nothing about the tenant");
    }
    async fn an_answer_in_doubt_that_asks_to_be_left_alone_makes_the_tenant_cautious_and_wait(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.ask(&[1, 2]).await;
        let call_id = db.claim().await.remove(0).call_id;
        let entries = [1, 2].map(|request| (RequestId(request), in_doubt())).to_vec();
        let then = db.then(3600).await;
        let recording = Recording { call_id, state: CallState::Unknown, entries, tenant: TenantEffect::Caution, leave_alone: Some(HOUR), surplus: Vec::new() };
        crate::support::record(&*db.store, &recording, &Evidence::default()).await.unwrap();
        assert!(db.tenant().await.0.cautious);
        assert!(db.is_ahead("wait_until", 3600, &then).await);
        assert_eq!(db.sql("SELECT wait_code FROM tenants").await, "asked_to_wait");
    }
}
