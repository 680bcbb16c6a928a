-- +goose Up
-- The identity of an event, for ever: 128 bits of a digest over (source, id). It outlives the raw event,
-- so retention never lets an event be counted again. No foreign keys here: the writer holds the account's
-- entitlement row, which has one.
CREATE TABLE usage_event_keys (
  account_id  uuid NOT NULL,
  key         uuid NOT NULL,
  content     uuid NOT NULL,             -- 128 bits of a digest over what the event says
  occurred_at timestamptz NOT NULL,      -- finds the raw event while it is kept
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
  quantity     numeric(24, 9) NOT NULL,  -- as reported
  counted      numeric(24, 9),           -- as rounded up by the meter, where that makes a difference
  value        text,                     -- what a meter of distinct values counts once
  occurred_at  timestamptz NOT NULL,
  period_start timestamptz NOT NULL,
  series       uuid NOT NULL,            -- where it counts: digest of the dimensions, nil without any, ff… beyond the cap
  dimensions   jsonb,
  PRIMARY KEY (account_id, occurred_at, key, received_at) -- the order of look-ups and exports: the one index to keep
) PARTITION BY RANGE (received_at);
CREATE TABLE usage_events_default PARTITION OF usage_events DEFAULT;

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
  version      bigint NOT NULL DEFAULT 1, -- grows with every flush that changes the row: part of the account's revision
  PRIMARY KEY (account_id, meter, period_start)
) WITH (fillfactor = 70); -- room for updates in place: these rows change with every flush
CREATE TABLE usage_series_totals (
  account_id   uuid NOT NULL,
  meter        text NOT NULL,
  period_start timestamptz NOT NULL,
  series       uuid NOT NULL,
  quantity     numeric(24, 9) NOT NULL,
  events       bigint NOT NULL,
  last_at      timestamptz,
  last_key     uuid,
  billed       numeric(24, 9) NOT NULL DEFAULT 0, -- of quantity: what stands on finalised invoices
  billed_events bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (account_id, meter, period_start, series)
) WITH (fillfactor = 70);
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
) WITH (fillfactor = 80);
-- Values seen by meters that count distinct ones, once for each roll-up that counts them.
CREATE TABLE usage_unique_values (
  account_id   uuid NOT NULL,
  meter        text NOT NULL,
  period_start timestamptz NOT NULL,
  value        uuid NOT NULL,            -- digest of the roll-up (total, series or bucket) and the value
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
-- Corrections name the event that they void or amend; the event itself is never changed. The latest
-- one of an event says what it counts.
CREATE TABLE usage_corrections (
  account_id   uuid NOT NULL,
  id           uuid NOT NULL,
  key          uuid NOT NULL,
  sequence     integer NOT NULL CHECK (sequence > 0), -- of the event's corrections
  kind         text NOT NULL CHECK (kind IN ('void', 'amend')),
  meter        text NOT NULL,
  quantity_before numeric(24, 9) NOT NULL, -- as counted
  quantity_after  numeric(24, 9) NOT NULL CHECK (quantity_after >= 0),
  period_start timestamptz NOT NULL,
  reason       text NOT NULL,
  actor        text NOT NULL,
  at           timestamptz NOT NULL,
  PRIMARY KEY (account_id, id),
  UNIQUE (account_id, key, sequence),
  FOREIGN KEY (account_id, key) REFERENCES usage_event_keys (account_id, key),
  CHECK (kind = 'amend' OR quantity_after = 0)
);
CREATE TABLE reservations (
  account_id   uuid NOT NULL,
  id           uuid NOT NULL,
  meter        text NOT NULL,
  period_start timestamptz NOT NULL,
  quantity     numeric(24, 9) NOT NULL CHECK (quantity > 0), -- held while open
  used         numeric(24, 9),           -- settled by a commit
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

-- Partitions belong to the schema's owner; the service, which owns nothing, may only ask for them here.
-- A month that the default partition already holds rows of stays there.
-- +goose StatementBegin
CREATE FUNCTION usage_events_open_month(month date) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
  first date := date_trunc('month', month)::date;
  name  text := 'usage_events_' || to_char(first, 'YYYYMM');
BEGIN
  IF to_regclass('public.' || name) IS NOT NULL
     OR EXISTS (SELECT FROM usage_events_default
                WHERE received_at >= first::timestamp AT TIME ZONE 'UTC'
                  AND received_at < (first + interval '1 month') AT TIME ZONE 'UTC') THEN
    RETURN false;
  END IF;
  EXECUTE format('CREATE TABLE %I PARTITION OF usage_events FOR VALUES FROM (%L) TO (%L)', name,
                 first::timestamp AT TIME ZONE 'UTC', (first + interval '1 month') AT TIME ZONE 'UTC');
  RETURN true;
END $$;
-- +goose StatementEnd
-- Drops the months of arrival that ended before the given day, and returns how many.
-- +goose StatementBegin
CREATE FUNCTION usage_events_drop_before(day date) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
  name text;
  dropped integer := 0;
BEGIN
  FOR name IN
    SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'usage_events'::regclass AND c.relname ~ '^usage_events_[0-9]{6}$'
      AND to_date(right(c.relname, 6), 'YYYYMM') + interval '1 month' <= day
  LOOP
    EXECUTE format('DROP TABLE %I', name);
    dropped := dropped + 1;
  END LOOP;
  RETURN dropped;
END $$;
-- +goose StatementEnd
REVOKE EXECUTE ON FUNCTION usage_events_open_month(date), usage_events_drop_before(date) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION usage_events_open_month(date), usage_events_drop_before(date) TO accrue_app;
GRANT SELECT, INSERT ON usage_event_keys, usage_events, usage_series, usage_rejects, usage_corrections TO accrue_app;
GRANT SELECT, INSERT, UPDATE ON usage_totals, usage_series_totals, usage_buckets, reservations TO accrue_app;
GRANT SELECT, INSERT, DELETE ON usage_unique_values TO accrue_app;

-- +goose Down
DROP FUNCTION usage_events_open_month(date), usage_events_drop_before(date);
DROP TABLE reservations, usage_corrections, usage_rejects, usage_unique_values, usage_buckets, usage_series, usage_series_totals, usage_totals, usage_events, usage_event_keys;
