-- What a row costs to insert: three quarters of what it did. The same rows are refused, with the same sentences.

-- A row that is plainly in order needs no function call, which costs more than all that it checks. Whatever is left open here, a time,
-- a device ID in capitals, a NULL, is for the function to judge.
DROP TRIGGER reprovision_requests_check ON reprovision_requests;
CREATE TRIGGER reprovision_requests_check BEFORE INSERT ON reprovision_requests FOR EACH ROW
    WHEN ((NEW.managed_device_id ~ '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
           AND NEW.managed_device_id <> '00000000-0000-0000-0000-000000000000'
           AND NEW.tenant IS NOT NULL AND NEW.not_before IS NULL AND NEW.expires_at IS NULL
           AND NEW.priority BETWEEN -1000 AND 1000 AND NEW.created_at = now()
           AND octet_length(coalesce(NEW.requested_by, '')) <= 256 AND octet_length(coalesce(NEW.reason, '')) <= 4000
           AND octet_length(coalesce(NEW.external_id, '')) <= 256) IS NOT TRUE)
    EXECUTE FUNCTION reprovision_requests_check();

-- Whether its tenant is configured is asked once a statement. The foreign key comes after that, so that a wrong name gets the sentence.
ALTER TABLE reprovision_requests ALTER CONSTRAINT reprovision_requests_tenant_fkey DEFERRABLE INITIALLY DEFERRED;
CREATE OR REPLACE FUNCTION reprovision_requests_queue() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    unknown text;
BEGIN
    SELECT i.tenant INTO unknown FROM inserted i WHERE NOT EXISTS (SELECT FROM tenants t WHERE t.name = i.tenant) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'foreign_key_violation', MESSAGE = format(
            'reprovision_requests.tenant is not a configured tenant: add [tenants.NAME] to the configuration and run reprovisiond migrate, or correct the name %L',
            left(unknown, 80));
    END IF;
    INSERT INTO reprovision_queue (request_id, tenant, managed_device_id, priority, ready, due_at, expires_at, wait_reason)
    SELECT id, tenant, managed_device_id, priority, coalesce(not_before <= created_at, true),
           greatest(created_at, not_before), expires_at, CASE WHEN not_before > created_at THEN 'not_before' END
    FROM inserted;
    PERFORM pg_notify('reprovisiond', '');
    RETURN NULL;
END $$;
