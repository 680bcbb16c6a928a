-- +goose Up
CREATE TABLE accounts (
  id          uuid PRIMARY KEY,          -- the distribution key of every tenant table
  external_id text NOT NULL CHECK (length(external_id) BETWEEN 1 AND 255),
  name        text NOT NULL DEFAULT '',
  status      text NOT NULL CHECK (status IN ('active', 'suspended', 'closed')),
  currency    text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
  time_zone   text NOT NULL,
  clock_at    timestamptz,               -- the account's test clock; NULL in real time
  created_at  timestamptz NOT NULL,
  updated_at  timestamptz NOT NULL,
  version     bigint NOT NULL DEFAULT 1
);
CREATE INDEX accounts_on_test_clocks ON accounts (id) WHERE clock_at IS NOT NULL;
-- Lookup by the operator's own name for the account: a table of its own, keyed by what is looked up.
CREATE TABLE account_external_ids (
  external_id text PRIMARY KEY,
  account_id  uuid NOT NULL
);
-- One row of counters an account: the gap-free series that belong to it.
CREATE TABLE account_counters (
  account_id uuid PRIMARY KEY REFERENCES accounts (id),
  events     bigint NOT NULL DEFAULT 0,  -- account_events.sequence
  invoices   bigint NOT NULL DEFAULT 0,  -- invoice numbers
  ledger     bigint NOT NULL DEFAULT 0,  -- ledger_transactions.sequence
  ledger_hash bytea NOT NULL DEFAULT '\x' -- head of the hash chain
);
CREATE TABLE billing_profiles (
  account_id uuid PRIMARY KEY REFERENCES accounts (id),
  name       text NOT NULL,
  email      text NOT NULL,
  address    jsonb NOT NULL,
  tax_id     text NOT NULL DEFAULT '',
  updated_at timestamptz NOT NULL,
  version    bigint NOT NULL DEFAULT 1
);
-- Keys are found before the account is known. account_id is NULL for a key of the operator's own services.
CREATE TABLE api_keys (
  key_hash     bytea PRIMARY KEY CHECK (length(key_hash) = 32),
  id           uuid NOT NULL,
  account_id   uuid,
  name         text NOT NULL,
  mode         text NOT NULL CHECK (mode IN ('test', 'live')),
  last_four    text NOT NULL,
  scopes       text[] NOT NULL,
  ceilings     jsonb NOT NULL DEFAULT '{}',
  created_at   timestamptz NOT NULL,
  expires_at   timestamptz,
  revoked_at   timestamptz,
  last_used_at timestamptz
);
CREATE INDEX api_keys_account ON api_keys (account_id, id);

CREATE TABLE idempotency_keys (
  account_id   uuid NOT NULL,
  scope        text NOT NULL,            -- principal, method and route
  key          text NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
  fingerprint  bytea NOT NULL,           -- keyed hash of the raw body
  operation_id uuid,                     -- the record that the first request created
  status       integer,                  -- of the stored answer; NULL while there is none
  body         bytea,
  locked_until timestamptz NOT NULL,     -- database time
  created_at   timestamptz NOT NULL,
  expires_at   timestamptz NOT NULL,
  PRIMARY KEY (account_id, scope, key),
  CHECK ((status IS NULL) = (body IS NULL))
);
CREATE INDEX idempotency_keys_expiry ON idempotency_keys (expires_at);

-- What happened, in the account's own gap-free order: the outbox of webhooks, of the event stream and of the audit.
-- Here and in the audit log no foreign key leads to the account: what they tell of has one, their numbers are the
-- account's counters', and accounts are never deleted. The invariant checker looks all the same.
CREATE TABLE account_events (
  account_id  uuid NOT NULL,
  sequence    bigint NOT NULL CHECK (sequence > 0),
  id          uuid NOT NULL,
  type        text NOT NULL,
  payload     jsonb NOT NULL,
  occurred_at timestamptz NOT NULL,
  PRIMARY KEY (account_id, sequence)
);
-- What is to be done: committed with the state that asks for it, handed to the queue by a relay.
CREATE TABLE job_intents (
  account_id uuid NOT NULL REFERENCES accounts (id),
  id         uuid NOT NULL,
  kind       text NOT NULL,
  args       jsonb NOT NULL,
  due_at     timestamptz NOT NULL,
  relayed_at timestamptz,
  PRIMARY KEY (account_id, id)
);
CREATE INDEX job_intents_due ON job_intents (due_at, account_id) WHERE relayed_at IS NULL;

CREATE TABLE audit_entries (
  account_id uuid NOT NULL,
  id         uuid NOT NULL,
  actor      text NOT NULL,
  action     text NOT NULL,
  reason     text NOT NULL DEFAULT '',
  detail     jsonb NOT NULL DEFAULT '{}',
  at         timestamptz NOT NULL,
  PRIMARY KEY (account_id, id)
);
CREATE INDEX audit_entries_newest ON audit_entries (id);
-- What the operator's staff did that concerns no one account: the catalogue, keys of the platform.
CREATE TABLE operator_audit_entries (
  id     uuid PRIMARY KEY,
  actor  text NOT NULL,
  action text NOT NULL,
  reason text NOT NULL DEFAULT '',
  detail jsonb NOT NULL DEFAULT '{}',
  at     timestamptz NOT NULL
);
GRANT SELECT, INSERT, UPDATE ON accounts, account_counters, billing_profiles TO accrue_app;
GRANT SELECT, INSERT ON account_external_ids, account_events, audit_entries, operator_audit_entries TO accrue_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON api_keys, idempotency_keys, job_intents TO accrue_app;

-- +goose Down
DROP TABLE operator_audit_entries, audit_entries, job_intents, account_events, idempotency_keys, api_keys, billing_profiles, account_counters, account_external_ids, accounts;
