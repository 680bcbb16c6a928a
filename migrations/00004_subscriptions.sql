-- +goose Up
-- An enterprise contract: overrides on a plan version, for one account and a span of time.
CREATE TABLE contracts (
  account_id   uuid NOT NULL REFERENCES accounts (id),
  id           uuid NOT NULL,
  plan_code    text NOT NULL,
  plan_version integer NOT NULL,
  definition   jsonb NOT NULL,
  starts_at    timestamptz NOT NULL,
  ends_at      timestamptz,
  created_at   timestamptz NOT NULL,
  ended_at     timestamptz,
  PRIMARY KEY (account_id, id),
  FOREIGN KEY (plan_code, plan_version) REFERENCES plan_versions (plan_code, number),
  CHECK (ends_at IS NULL OR ends_at > starts_at)
);
CREATE TABLE subscriptions (
  account_id   uuid NOT NULL REFERENCES accounts (id),
  id           uuid NOT NULL,
  plan_code    text NOT NULL,
  plan_version integer NOT NULL,
  contract_id  uuid,
  status       text NOT NULL CHECK (status IN ('active', 'ended')),
  anchor       date NOT NULL,            -- all period bounds are computed from it
  time_zone    text NOT NULL,            -- that of the current period
  interval     text NOT NULL CHECK (interval IN ('month', 'year')),
  period_index integer NOT NULL CHECK (period_index >= 0),
  period_start timestamptz NOT NULL,
  period_end   timestamptz NOT NULL,
  next_plan    text,                     -- takes effect when the period ends
  next_version integer,                  -- of the plan that is held: likewise, unless next_plan goes before it
  waived       jsonb NOT NULL DEFAULT '{}', -- per meter: quantity of this period that is never billed
  held         jsonb NOT NULL DEFAULT '[]', -- the terms that this period was under before the present ones, with their time
  created_at   timestamptz NOT NULL,
  updated_at   timestamptz NOT NULL,
  version      bigint NOT NULL DEFAULT 1,
  PRIMARY KEY (account_id, id),
  FOREIGN KEY (plan_code, plan_version) REFERENCES plan_versions (plan_code, number),
  FOREIGN KEY (account_id, contract_id) REFERENCES contracts (account_id, id),
  CHECK (period_end > period_start)
);
CREATE UNIQUE INDEX subscriptions_one_active ON subscriptions (account_id) WHERE status = 'active';
CREATE INDEX subscriptions_on_plan ON subscriptions (plan_code, account_id) WHERE status = 'active';
CREATE INDEX subscriptions_due ON subscriptions (period_end) WHERE status = 'active';
-- Every period that was opened, with its bounds as they were then: never recomputed.
CREATE TABLE billing_periods (
  account_id      uuid NOT NULL,
  subscription_id uuid NOT NULL,
  period_start    timestamptz NOT NULL,
  period_end      timestamptz NOT NULL,
  index           integer NOT NULL CHECK (index >= 0),
  plan_code       text NOT NULL,         -- as it stood when the period closed (until then: now)
  plan_version    integer NOT NULL,
  contract_id     uuid,
  waived          jsonb NOT NULL DEFAULT '{}',
  held            jsonb NOT NULL DEFAULT '[]',
  closed_at       timestamptz,
  PRIMARY KEY (account_id, subscription_id, period_start),
  UNIQUE (account_id, subscription_id, index),
  FOREIGN KEY (account_id, subscription_id) REFERENCES subscriptions (account_id, id),
  CHECK (period_end > period_start)
);
-- Limits and period as plain numbers, for whoever admits usage: one row, one lock an account.
CREATE TABLE entitlements (
  account_id    uuid PRIMARY KEY REFERENCES accounts (id),
  status        text NOT NULL CHECK (status IN ('active', 'suspended', 'closed')),
  level         text NOT NULL,           -- the plan's code, to be shown
  currency      text NOT NULL,
  period_starts timestamptz[] NOT NULL,  -- ascending: starts of the periods that still take events, the current one last
  period_end    timestamptz NOT NULL,    -- of the current period
  limits        jsonb NOT NULL,          -- {"voice": {"limit": "60000", "mode": "hard"}}
  spend_limit   bigint CHECK (spend_limit >= 0), -- minor units a period, tax included; NULL: none
  spend_mode    text NOT NULL DEFAULT 'hard' CHECK (spend_mode IN ('hard', 'soft')),
  spend_told    timestamptz,             -- start of the period in which the account was told that the spend limit is reached
  updated_at    timestamptz NOT NULL,
  version       bigint NOT NULL DEFAULT 1,
  corrections   bigint NOT NULL DEFAULT 0 -- of usage, so far: part of the account's revision
);
GRANT SELECT, INSERT, UPDATE ON contracts, subscriptions, billing_periods, entitlements TO accrue_app;

-- +goose Down
DROP TABLE entitlements, billing_periods, subscriptions, contracts;
