-- Five roles for reprovisiond on Postgres, each with what it needs and no more. For psql, in the daemon's own database:
--
--   psql -d reprovisiond -f roles.sql      as a superuser, or as the database's owner with CREATEROLE
--   reprovisiond migrate                   as the migrator
--   psql -d reprovisiond -f roles.sql      again, now that there are tables; and so after each upgrade
--
-- It may be run any number of times: what the roles may do to the daemon's tables is afterwards just what stands here. New
-- roles may log in and have no password: give them one (\password), or let pg_hba.conf say how they are known. A role that is
-- there already keeps its attributes. Names are variables: -v schema=public -v worker=svc_reprovisiond, and so on.
--
--   producer   asks: INSERT on the contract's columns, SELECT on request_status
--   worker     the daemon's `run`: no DDL, and no word of an operator's
--   operator   status, results, enqueue, pause, resume, cancel, resolve
--   auditor    reads the views and what is append-only; `results`
--   migrator   owns the schema; only `migrate` needs it
\set ON_ERROR_STOP on
\if :{?schema}
\else
\set schema reprovisiond
\endif
\if :{?producer}
\else
\set producer reprovisiond_producer
\endif
\if :{?worker}
\else
\set worker reprovisiond_worker
\endif
\if :{?operator}
\else
\set operator reprovisiond_operator
\endif
\if :{?auditor}
\else
\set auditor reprovisiond_auditor
\endif
\if :{?migrator}
\else
\set migrator reprovisiond_migrator
\endif

BEGIN;
SET LOCAL client_min_messages = warning;

SELECT format('CREATE ROLE %I LOGIN', name)
FROM unnest(ARRAY[:'producer', :'worker', :'operator', :'auditor', :'migrator']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
\gexec

-- Who is no superuser gives and takes privileges on the migrator's tables as its member.
SELECT format('GRANT %I TO %I', :'migrator', current_user)
WHERE NOT pg_has_role(current_user, :'migrator', 'USAGE')
\gexec

-- Temporary tables come before all others wherever a search_path does not say otherwise, triggers that run as their owner
-- included. Nobody here needs any.
REVOKE ALL ON DATABASE :"DBNAME" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"DBNAME" TO :"producer", :"worker", :"operator", :"auditor", :"migrator";

SELECT format('CREATE SCHEMA %I AUTHORIZATION %I', :'schema', :'migrator')
WHERE NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = :'schema')
\gexec
REVOKE ALL ON SCHEMA :"schema" FROM PUBLIC, :"producer", :"worker", :"operator", :"auditor";
GRANT USAGE ON SCHEMA :"schema" TO :"producer", :"worker", :"operator", :"auditor", :"migrator";
GRANT CREATE ON SCHEMA :"schema" TO :"migrator";

-- pg_temp last, by name: the triggers that run as their owner take this path from the migrator when it makes them. A role that
-- is a member of one of these does not get it, and writes the schema before the table's name.
SELECT format('ALTER ROLE %I IN DATABASE %I SET search_path = %I, pg_temp', name, :'DBNAME', :'schema')
FROM unnest(ARRAY[:'producer', :'worker', :'operator', :'auditor', :'migrator']) AS name
\gexec

-- What the migrations have made, whoever ran them: their tables and views by name, and the functions of these tables' triggers.
CREATE TEMPORARY VIEW reprovisiond_relations AS
SELECT c.oid, c.oid::regclass AS name, c.relowner AS owner
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = :'schema' AND c.relkind IN ('r', 'v') AND c.relname IN (
    '_sqlx_migrations', 'tenants', 'reprovision_requests', 'reprovision_queue', 'graph_calls', 'device_results', 'workers',
    'operator_actions', 'pauses', 'completion_tenants', 'completion_watches', 'completions',
    'request_status', 'device_history', 'bucket_totals', 'completion_totals');

-- A schema that another role has migrated so far becomes the migrator's.
SELECT format('ALTER TABLE %s OWNER TO %I', name, :'migrator') FROM reprovisiond_relations
WHERE owner <> (SELECT oid FROM pg_roles WHERE rolname = :'migrator')
UNION ALL
SELECT DISTINCT format('ALTER FUNCTION %s OWNER TO %I', p.oid::regprocedure, :'migrator')
FROM reprovisiond_relations r JOIN pg_trigger t ON t.tgrelid = r.oid AND NOT t.tgisinternal JOIN pg_proc p ON p.oid = t.tgfoid
WHERE p.proowner <> (SELECT oid FROM pg_roles WHERE rolname = :'migrator')
\gexec
SELECT format('REVOKE ALL ON %s FROM PUBLIC, %I, %I, %I, %I', name, :'producer', :'worker', :'operator', :'auditor')
FROM reprovisiond_relations
\gexec
SELECT count(*) = 16 AS migrated FROM reprovisiond_relations
\gset
DROP VIEW reprovisiond_relations;

\if :migrated
SET LOCAL search_path = :"schema", pg_temp;

-- Columns, so that nobody sets id or created_at. What is read is request_status, which is for all requests: RETURNING, and an
-- ON CONFLICT that names columns, would need SELECT on the table.
GRANT INSERT (tenant, managed_device_id, requested_by, reason, external_id, priority, not_before, expires_at, force)
    ON reprovision_requests TO :"producer", :"operator";
GRANT SELECT ON request_status TO :"producer";

-- The queue is filled by the trigger of reprovision_requests, and completion_watches by that of device_results, as their owner.
GRANT SELECT ON _sqlx_migrations, reprovision_requests, pauses TO :"worker";
GRANT SELECT, INSERT ON device_results, completions TO :"worker";
GRANT SELECT, UPDATE, DELETE ON reprovision_queue, completion_watches TO :"worker";
GRANT SELECT, INSERT, UPDATE ON tenants, graph_calls, workers TO :"worker";
GRANT SELECT, INSERT, UPDATE, DELETE ON completion_tenants TO :"worker";

GRANT SELECT ON _sqlx_migrations, tenants, reprovision_requests, reprovision_queue, graph_calls, device_results, workers,
    operator_actions, pauses, completion_watches, completions, request_status, device_history, bucket_totals, completion_totals
    TO :"operator";
GRANT UPDATE (paused_at, paused_by, pause_reason) ON tenants TO :"operator";
GRANT INSERT, DELETE ON pauses TO :"operator";
GRANT INSERT ON operator_actions, device_results TO :"operator";
GRANT UPDATE, DELETE ON reprovision_queue TO :"operator";

-- The last two are what `results` reads besides.
GRANT SELECT ON reprovision_requests, graph_calls, device_results, operator_actions, completions, request_status, device_history,
    bucket_totals, completion_totals, completion_watches, _sqlx_migrations TO :"auditor";
\echo 'The roles have their privileges on the tables.'
\else
\echo 'The roles and the schema are there. Run `reprovisiond migrate` as the migrator, and then this script again.'
\endif
COMMIT;
