-- +goose Up
-- Reference tables: small, rarely written, without an account.
CREATE TABLE meters (
  code       text PRIMARY KEY CHECK (code ~ '^[a-z][a-z0-9_]{0,63}$'),
  definition jsonb NOT NULL
);
CREATE TABLE plans (
  code       text PRIMARY KEY CHECK (code ~ '^[a-z][a-z0-9_]{0,63}$'),
  position   integer NOT NULL,          -- the order of a pricing page
  definition jsonb NOT NULL,            -- name, description, requires_card, contact_sales
  archived_at timestamptz
);
CREATE TABLE plan_versions (
  plan_code    text NOT NULL REFERENCES plans (code),
  number       integer NOT NULL CHECK (number > 0),
  definition   jsonb NOT NULL,          -- fee, charges with tiers, limits
  content_hash bytea NOT NULL CHECK (length(content_hash) = 32),
  published_at timestamptz,
  archived_at  timestamptz,
  created_at   timestamptz NOT NULL,
  PRIMARY KEY (plan_code, number)
);
GRANT SELECT, INSERT, UPDATE ON meters, plans TO accrue_app;
-- A version's definition is never changed: only its publication and its archiving are.
GRANT SELECT, INSERT, UPDATE (published_at, archived_at) ON plan_versions TO accrue_app;

-- +goose Down
DROP TABLE plan_versions, plans, meters;
