-- +goose Up
-- Promotional credit: several grants, spent soonest to expire first.
CREATE TABLE credit_grants (
  account_id uuid NOT NULL REFERENCES accounts (id),
  id         uuid NOT NULL,
  amount     bigint NOT NULL CHECK (amount > 0),
  remaining  bigint NOT NULL CHECK (remaining >= 0),
  currency   text NOT NULL,
  priority   smallint NOT NULL DEFAULT 0,
  reason     text NOT NULL,
  actor      text NOT NULL,
  granted_at timestamptz NOT NULL,
  expires_at timestamptz,
  expired_at timestamptz,
  PRIMARY KEY (account_id, id),
  CHECK (remaining <= amount)
);
CREATE INDEX credit_grants_expiry ON credit_grants (expires_at) WHERE remaining > 0 AND expires_at IS NOT NULL;
CREATE TABLE auto_top_ups (
  account_id      uuid PRIMARY KEY REFERENCES accounts (id),
  enabled         boolean NOT NULL,
  currency        text NOT NULL,
  threshold       bigint NOT NULL CHECK (threshold >= 0),
  target          bigint NOT NULL,
  monthly_ceiling bigint CHECK (monthly_ceiling > 0),
  state           text NOT NULL DEFAULT 'ok' CHECK (state IN ('ok', 'tripped')),
  tripped_reason  text NOT NULL DEFAULT '',
  tripped_at      timestamptz,
  updated_at      timestamptz NOT NULL,
  version         bigint NOT NULL DEFAULT 1,
  CHECK (target > threshold)
);
CREATE TABLE usage_alerts (
  account_id uuid NOT NULL REFERENCES accounts (id),
  id         uuid NOT NULL,
  kind       text NOT NULL CHECK (kind IN ('usage', 'spend', 'low_balance')),
  meter      text,
  threshold  numeric(24, 9) NOT NULL,    -- units of the meter, or minor units of money
  created_at timestamptz NOT NULL,
  removed_at timestamptz,
  PRIMARY KEY (account_id, id),
  CHECK ((kind = 'usage') = (meter IS NOT NULL))
);
-- The insert wins the right to tell: once per alert, period and threshold.
CREATE TABLE usage_alert_firings (
  account_id   uuid NOT NULL,
  alert_id     uuid NOT NULL,
  period_start timestamptz NOT NULL,
  threshold    numeric(24, 9) NOT NULL,
  fired_at     timestamptz NOT NULL,
  value        numeric(24, 9) NOT NULL,
  PRIMARY KEY (account_id, alert_id, period_start, threshold),
  FOREIGN KEY (account_id, alert_id) REFERENCES usage_alerts (account_id, id)
);
-- "Contact sales": the usage that the inquiry stands on is frozen with it.
CREATE TABLE sales_inquiries (
  account_id uuid NOT NULL REFERENCES accounts (id),
  id         uuid NOT NULL,
  status     text NOT NULL CHECK (status IN ('received', 'in_progress', 'won', 'lost')),
  name       text NOT NULL,
  email      text NOT NULL,
  company    text NOT NULL DEFAULT '',
  message    text NOT NULL DEFAULT '',
  snapshot   jsonb NOT NULL,
  note       text NOT NULL DEFAULT '',   -- of the salesperson; the customer does not see it
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  version    bigint NOT NULL DEFAULT 1,
  PRIMARY KEY (account_id, id)
);
GRANT SELECT, INSERT, UPDATE ON credit_grants, auto_top_ups, usage_alerts, sales_inquiries TO accrue_app;
GRANT SELECT, INSERT ON usage_alert_firings TO accrue_app;

-- +goose Down
DROP TABLE sales_inquiries, usage_alert_firings, usage_alerts, auto_top_ups, credit_grants;
