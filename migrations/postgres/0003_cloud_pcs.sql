-- Actions that take Cloud PC IDs.

-- The Cloud PC of each device, in the order of managed_device_ids; null for a device that has none, or several. It is written with
-- the intent: after a reprovision the managed device ID need not lead to the Cloud PC any more.
ALTER TABLE graph_calls ADD COLUMN cloud_pc_ids uuid[] CHECK (cardinality(cloud_pc_ids) = device_count);

DROP TRIGGER graph_calls_intent_stands ON graph_calls;
CREATE TRIGGER graph_calls_intent_stands BEFORE UPDATE ON graph_calls FOR EACH ROW
    WHEN ((OLD.id, OLD.tenant, OLD.action, OLD.worker, OLD.managed_device_ids, OLD.request_ids, OLD.request_digest, OLD.sent_at, OLD.cloud_pc_ids)
        IS DISTINCT FROM (NEW.id, NEW.tenant, NEW.action, NEW.worker, NEW.managed_device_ids, NEW.request_ids, NEW.request_digest, NEW.sent_at, NEW.cloud_pc_ids))
    EXECUTE FUNCTION reprovisiond_refuse('graph_calls: an intent is never changed');
