-- +goose Up
-- A migration moves the accounts on older versions of a plan to one version, account by account.
CREATE TABLE plan_migrations (
  id           uuid PRIMARY KEY,
  plan_code    text NOT NULL,
  to_version   integer NOT NULL,
  takes_effect text NOT NULL CHECK (takes_effect IN ('period_end', 'now')),
  status       text NOT NULL CHECK (status IN ('running', 'completed', 'canceled')),
  actor        text NOT NULL,
  reason       text NOT NULL DEFAULT '',
  created_at   timestamptz NOT NULL,
  completed_at timestamptz,
  canceled_at  timestamptz,
  FOREIGN KEY (plan_code, to_version) REFERENCES plan_versions (plan_code, number),
  CHECK ((status = 'completed') = (completed_at IS NOT NULL)),
  CHECK ((status = 'canceled') = (canceled_at IS NOT NULL))
);
CREATE UNIQUE INDEX plan_migrations_one_running ON plan_migrations (plan_code) WHERE status = 'running';
-- What became of each account: written in the transaction that moves it, so that a migration which was
-- interrupted goes on with those that are left.
CREATE TABLE plan_migration_accounts (
  account_id   uuid NOT NULL REFERENCES accounts (id),
  migration_id uuid NOT NULL REFERENCES plan_migrations (id),
  from_version integer NOT NULL,
  outcome      text NOT NULL CHECK (outcome IN ('migrated', 'contract', 'currency', 'plan_changed')),
  at           timestamptz NOT NULL,
  PRIMARY KEY (account_id, migration_id)
);
CREATE INDEX plan_migration_accounts_of ON plan_migration_accounts (migration_id, outcome);
GRANT SELECT, INSERT ON plan_migrations, plan_migration_accounts TO accrue_app;
GRANT UPDATE (status, completed_at, canceled_at) ON plan_migrations TO accrue_app;

-- +goose Down
DROP TABLE plan_migration_accounts, plan_migrations;
