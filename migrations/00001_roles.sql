-- +goose Up
-- The service runs as accrue_app (SET ROLE on connect). What it may not do, it was not granted:
-- there is no UPDATE and no DELETE on the journal, on issued invoices or on usage.
-- Roles belong to the cluster, so two databases may be migrated at the same moment.
-- +goose StatementBegin
DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'accrue_app') THEN
    CREATE ROLE accrue_app NOLOGIN;
  END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
  NULL; -- another migration was quicker
END $$;
-- +goose StatementEnd
-- +goose StatementBegin
DO $$
BEGIN
  IF NOT pg_has_role(current_user, 'accrue_app', 'MEMBER') THEN
    EXECUTE format('GRANT accrue_app TO %I', current_user);
  END IF;
END $$;
-- +goose StatementEnd
GRANT USAGE ON SCHEMA public TO accrue_app;

-- +goose Down
REVOKE USAGE ON SCHEMA public FROM accrue_app;
