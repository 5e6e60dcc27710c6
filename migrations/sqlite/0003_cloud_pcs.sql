-- Actions that take Cloud PC IDs.

-- The Cloud PC of each device, in the order of managed_device_ids; null for a device that has none, or several. It is written with
-- the intent: after a reprovision the managed device ID need not lead to the Cloud PC any more.
ALTER TABLE graph_calls ADD COLUMN cloud_pc_ids TEXT CHECK (json_array_length(cloud_pc_ids) = device_count);

DROP TRIGGER graph_calls_intent_stands;
CREATE TRIGGER graph_calls_intent_stands BEFORE UPDATE ON graph_calls
WHEN (OLD.id, OLD.tenant, OLD.action, OLD.worker, OLD.managed_device_ids, OLD.request_ids, OLD.request_digest, OLD.sent_at, OLD.cloud_pc_ids)
    IS NOT (NEW.id, NEW.tenant, NEW.action, NEW.worker, NEW.managed_device_ids, NEW.request_ids, NEW.request_digest, NEW.sent_at, NEW.cloud_pc_ids)
BEGIN SELECT RAISE(ABORT, 'graph_calls: an intent is never changed'); END;
