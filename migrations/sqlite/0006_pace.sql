-- What refusals for too many calls have taught about a tenant's rate, for all workers.

-- When Graph last refused a call for the rate.
ALTER TABLE tenants ADD COLUMN throttled_at TEXT;
-- Thousandths of the configured rate that were used from paced_at on; it rises again from there.
ALTER TABLE tenants ADD COLUMN pace INTEGER NOT NULL DEFAULT 1000 CHECK (pace BETWEEN 1 AND 1000);
ALTER TABLE tenants ADD COLUMN paced_at TEXT;
