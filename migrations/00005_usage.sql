-- +goose Up
-- The identity of an event, for ever: 128 bits of a digest over (source, id). It outlives the raw event,
-- so retention never lets an event be counted again. No foreign keys here: the writer holds the account's
-- entitlement row, which has one.
CREATE TABLE usage_event_keys (
  account_id  uuid NOT NULL,
  key         uuid NOT NULL,
  content     uuid NOT NULL,             -- 128 bits of a digest over what the event says
  received_at timestamptz NOT NULL,      -- finds the raw event while it is kept
  PRIMARY KEY (account_id, key)
);
-- Raw events, in months of arrival that can be dropped.
CREATE TABLE usage_events (
  account_id   uuid NOT NULL,
  received_at  timestamptz NOT NULL,
  key          uuid NOT NULL,
  source       text NOT NULL,
  event_id     text NOT NULL,
  meter        text NOT NULL,
  quantity     numeric(24, 9) NOT NULL,
  occurred_at  timestamptz NOT NULL,
  period_start timestamptz NOT NULL,
  series       uuid NOT NULL,            -- digest of the dimensions; the nil UUID without any
  dimensions   jsonb,
  PRIMARY KEY (account_id, received_at, key)
) PARTITION BY RANGE (received_at);
CREATE TABLE usage_events_default PARTITION OF usage_events DEFAULT;
CREATE INDEX usage_events_occurred ON usage_events (account_id, meter, occurred_at);

-- What was used, live: changed in the transaction that stores the events.
CREATE TABLE usage_totals (
  account_id   uuid NOT NULL,
  meter        text NOT NULL,
  period_start timestamptz NOT NULL,
  quantity     numeric(24, 9) NOT NULL CHECK (quantity >= 0),
  events       bigint NOT NULL CHECK (events >= 0),
  reserved     numeric(24, 9) NOT NULL DEFAULT 0 CHECK (reserved >= 0),
  last_at      timestamptz,              -- meters that keep the last or the largest value: whose value it is
  last_key     uuid,
  billed       numeric(24, 9),           -- quantity that stands on finalised invoices; NULL before
  billed_events bigint,
  PRIMARY KEY (account_id, meter, period_start)
);
CREATE TABLE usage_series_totals (
  account_id   uuid NOT NULL,
  meter        text NOT NULL,
  period_start timestamptz NOT NULL,
  series       uuid NOT NULL,
  quantity     numeric(24, 9) NOT NULL,
  events       bigint NOT NULL,
  last_at      timestamptz,
  last_key     uuid,
  PRIMARY KEY (account_id, meter, period_start, series)
);
CREATE TABLE usage_series (
  account_id uuid NOT NULL,
  meter      text NOT NULL,
  series     uuid NOT NULL,
  dimensions jsonb NOT NULL,
  PRIMARY KEY (account_id, meter, series)
);
CREATE TABLE usage_buckets (
  account_id uuid NOT NULL,
  meter      text NOT NULL,
  bucket     timestamptz NOT NULL,       -- start of 15 minutes, UTC
  series     uuid NOT NULL,
  quantity   numeric(24, 9) NOT NULL,
  events     bigint NOT NULL,
  last_at    timestamptz,
  last_key   uuid,
  PRIMARY KEY (account_id, meter, bucket, series)
);
-- Values seen by meters that count distinct ones.
CREATE TABLE usage_unique_values (
  account_id   uuid NOT NULL,
  meter        text NOT NULL,
  period_start timestamptz NOT NULL,
  value        uuid NOT NULL,            -- digest of the value
  PRIMARY KEY (account_id, meter, period_start, value)
);
-- Events that were refused for a limit, for reconciliation; their ids may be sent again.
CREATE TABLE usage_rejects (
  account_id  uuid NOT NULL,
  id          uuid NOT NULL,
  source      text NOT NULL,
  event_id    text NOT NULL,
  meter       text NOT NULL,
  quantity    numeric(24, 9) NOT NULL,
  occurred_at timestamptz NOT NULL,
  received_at timestamptz NOT NULL,
  reason      text NOT NULL,
  PRIMARY KEY (account_id, id)
);
CREATE INDEX usage_rejects_received ON usage_rejects (account_id, received_at);
-- Corrections name the event that they void or amend; the event itself is never changed.
CREATE TABLE usage_corrections (
  account_id   uuid NOT NULL,
  id           uuid NOT NULL,
  key          uuid NOT NULL,
  kind         text NOT NULL CHECK (kind IN ('void', 'amend')),
  meter        text NOT NULL,
  quantity_before numeric(24, 9) NOT NULL,
  quantity_after  numeric(24, 9) NOT NULL,
  period_start timestamptz NOT NULL,
  reason       text NOT NULL,
  actor        text NOT NULL,
  at           timestamptz NOT NULL,
  PRIMARY KEY (account_id, id),
  FOREIGN KEY (account_id, key) REFERENCES usage_event_keys (account_id, key)
);
CREATE INDEX usage_corrections_key ON usage_corrections (account_id, key);
CREATE TABLE reservations (
  account_id   uuid NOT NULL REFERENCES accounts (id),
  id           uuid NOT NULL,
  meter        text NOT NULL,
  period_start timestamptz NOT NULL,
  quantity     numeric(24, 9) NOT NULL CHECK (quantity > 0), -- held now
  used         numeric(24, 9),           -- settled by a commit
  spend        bigint NOT NULL DEFAULT 0 CHECK (spend >= 0), -- money held, minor units
  status       text NOT NULL CHECK (status IN ('open', 'committed', 'released', 'expired')),
  lease        boolean NOT NULL DEFAULT false,
  reference    text NOT NULL DEFAULT '',
  expires_at   timestamptz NOT NULL,     -- database time
  created_at   timestamptz NOT NULL,
  settled_at   timestamptz,
  version      bigint NOT NULL DEFAULT 1,
  PRIMARY KEY (account_id, id)
);
CREATE INDEX reservations_open ON reservations (expires_at) WHERE status = 'open';
CREATE INDEX reservations_of_account ON reservations (account_id, meter) WHERE status = 'open';

GRANT SELECT, INSERT ON usage_event_keys, usage_events, usage_series, usage_rejects, usage_corrections TO accrue_app;
GRANT SELECT, INSERT, UPDATE ON usage_totals, usage_series_totals, usage_buckets, reservations TO accrue_app;
GRANT SELECT, INSERT, DELETE ON usage_unique_values TO accrue_app;

-- +goose Down
DROP TABLE reservations, usage_corrections, usage_rejects, usage_unique_values, usage_buckets, usage_series, usage_series_totals, usage_totals, usage_events, usage_event_keys;
