-- +goose Up
CREATE TABLE provider_customers (
  account_id   uuid NOT NULL REFERENCES accounts (id),
  provider     text NOT NULL,
  customer_ref text NOT NULL,
  PRIMARY KEY (account_id, provider)
);
CREATE TABLE payment_setups (
  account_id   uuid NOT NULL REFERENCES accounts (id),
  id           uuid NOT NULL,
  provider     text NOT NULL,
  provider_ref text NOT NULL,            -- no client secret: that is sent once and kept nowhere
  used_by      uuid,                     -- the payment method that came of it
  created_at   timestamptz NOT NULL,
  expires_at   timestamptz NOT NULL,
  PRIMARY KEY (account_id, id),
  UNIQUE (account_id, provider, provider_ref)
);
-- A row is the intent to attach a card before it is a card.
CREATE TABLE payment_methods (
  account_id   uuid NOT NULL REFERENCES accounts (id),
  id           uuid NOT NULL,            -- the provider's idempotency key of the attachment
  status       text NOT NULL CHECK (status IN ('processing', 'requires_action', 'active', 'failed', 'removed')),
  is_default   boolean NOT NULL DEFAULT false,
  provider     text NOT NULL,
  provider_ref text,
  source       text NOT NULL DEFAULT '', -- the setup or token that it was made from
  customer_ref text NOT NULL DEFAULT '', -- the provider's customer that it belongs to; fixed with the intent
  setup_ref    text NOT NULL DEFAULT '', -- the provider's setup that a customer's action belongs to
  brand        text NOT NULL DEFAULT '',
  last_four    text NOT NULL DEFAULT '' CHECK (last_four ~ '^([0-9]{4})?$'),
  exp_month    smallint,
  exp_year     smallint,
  country      text NOT NULL DEFAULT '',
  fingerprint  text NOT NULL DEFAULT '', -- the provider's
  funding      text NOT NULL DEFAULT '',
  name         text NOT NULL DEFAULT '',
  email        text NOT NULL DEFAULT '',
  address      jsonb NOT NULL DEFAULT '{}',
  next_action  jsonb,
  failure      jsonb,
  check_at     timestamptz,              -- when the sweep asks the provider what became of it, or detaches it there
  expiry_noticed_at timestamptz,
  created_at   timestamptz NOT NULL,
  updated_at   timestamptz NOT NULL,
  version      bigint NOT NULL DEFAULT 1,
  PRIMARY KEY (account_id, id),
  CHECK (NOT is_default OR status = 'active')
);
CREATE UNIQUE INDEX payment_methods_one_default ON payment_methods (account_id) WHERE is_default;
CREATE INDEX payment_methods_to_check ON payment_methods (check_at) WHERE status IN ('processing', 'requires_action', 'removed') AND check_at IS NOT NULL;

-- The intent to charge a card. Committed before the provider is asked; its id is the provider's idempotency key.
CREATE TABLE payments (
  account_id        uuid NOT NULL,       -- the card's
  id                uuid NOT NULL,
  purpose           text NOT NULL CHECK (purpose IN ('invoice', 'top_up')),
  invoice_id        uuid,
  top_up_id         uuid,
  payment_method_id uuid NOT NULL,
  amount            bigint NOT NULL CHECK (amount > 0),
  currency          text NOT NULL,
  status            text NOT NULL CHECK (status IN ('processing', 'requires_action', 'succeeded', 'failed', 'canceled', 'parked')),
  off_session       boolean NOT NULL,
  actor             text NOT NULL DEFAULT '', -- who asked for it; the ceilings of API keys count by it
  provider          text NOT NULL,
  provider_ref      text,
  next_action       jsonb,
  failure           jsonb,               -- decline code, class, words for the customer
  refunded          bigint NOT NULL DEFAULT 0 CHECK (refunded >= 0),
  disputed          bigint NOT NULL DEFAULT 0 CHECK (disputed >= 0),
  check_at          timestamptz,         -- when the sweep asks the provider what became of it
  checks            integer NOT NULL DEFAULT 0,
  created_at        timestamptz NOT NULL,
  updated_at        timestamptz NOT NULL,
  succeeded_at      timestamptz,
  version           bigint NOT NULL DEFAULT 1,
  PRIMARY KEY (account_id, id),
  FOREIGN KEY (account_id, payment_method_id) REFERENCES payment_methods (account_id, id),
  FOREIGN KEY (account_id, invoice_id) REFERENCES invoices (account_id, id),
  CHECK ((purpose = 'invoice') = (invoice_id IS NOT NULL)),
  CHECK ((purpose = 'top_up') = (top_up_id IS NOT NULL)),
  CHECK (refunded + disputed <= amount),
  CHECK (refunded = 0 OR status = 'succeeded')
);
CREATE UNIQUE INDEX payments_one_active_per_invoice ON payments (account_id, invoice_id)
  WHERE status IN ('processing', 'requires_action', 'parked');
CREATE INDEX payments_parked ON payments (id) WHERE status = 'parked';
CREATE INDEX payments_to_check ON payments (check_at) WHERE status IN ('processing', 'requires_action');
CREATE TABLE refunds (
  account_id   uuid NOT NULL,
  id           uuid NOT NULL,
  payment_id   uuid NOT NULL,
  amount       bigint NOT NULL CHECK (amount > 0),
  currency     text NOT NULL,
  status       text NOT NULL CHECK (status IN ('processing', 'succeeded', 'failed', 'parked')),
  origin       text NOT NULL CHECK (origin IN ('operator', 'provider', 'account_close')),
  provider_ref text,
  reason       text NOT NULL DEFAULT '',
  actor        text NOT NULL DEFAULT '',
  check_at     timestamptz,
  created_at   timestamptz NOT NULL,
  updated_at   timestamptz NOT NULL,
  PRIMARY KEY (account_id, id),
  FOREIGN KEY (account_id, payment_id) REFERENCES payments (account_id, id)
);
CREATE INDEX refunds_to_check ON refunds (check_at) WHERE status = 'processing';
CREATE TABLE disputes (
  account_id   uuid NOT NULL,
  id           uuid NOT NULL,
  payment_id   uuid NOT NULL,
  provider_ref text NOT NULL,
  amount       bigint NOT NULL CHECK (amount > 0),
  currency     text NOT NULL,
  status       text NOT NULL CHECK (status IN ('open', 'won', 'lost')),
  reason       text NOT NULL DEFAULT '',
  created_at   timestamptz NOT NULL,
  updated_at   timestamptz NOT NULL,
  PRIMARY KEY (account_id, id),
  UNIQUE (account_id, provider_ref),
  FOREIGN KEY (account_id, payment_id) REFERENCES payments (account_id, id)
);
CREATE TABLE top_ups (
  account_id uuid NOT NULL REFERENCES accounts (id),
  id         uuid NOT NULL,
  origin     text NOT NULL CHECK (origin IN ('manual', 'auto')),
  amount     bigint NOT NULL CHECK (amount > 0),
  currency   text NOT NULL,
  status     text NOT NULL CHECK (status IN ('processing', 'requires_action', 'succeeded', 'failed', 'canceled')),
  payment_id uuid NOT NULL,
  failure    jsonb,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  version    bigint NOT NULL DEFAULT 1,
  PRIMARY KEY (account_id, id)
);
CREATE UNIQUE INDEX top_ups_one_pending ON top_ups (account_id) WHERE status IN ('processing', 'requires_action');
CREATE TABLE upgrades (
  account_id        uuid NOT NULL REFERENCES accounts (id),
  id                uuid NOT NULL,
  plan_code         text NOT NULL,
  plan_version      integer NOT NULL,
  status            text NOT NULL CHECK (status IN ('processing', 'requires_action', 'succeeded', 'failed', 'canceled')),
  payment_method_id uuid,
  billing_profile   jsonb,
  next_action       jsonb,
  failure           jsonb,
  created_at        timestamptz NOT NULL,
  updated_at        timestamptz NOT NULL,
  expires_at        timestamptz NOT NULL,
  version           bigint NOT NULL DEFAULT 1,
  PRIMARY KEY (account_id, id),
  FOREIGN KEY (account_id, payment_method_id) REFERENCES payment_methods (account_id, id)
);
CREATE UNIQUE INDEX upgrades_one_pending ON upgrades (account_id) WHERE status IN ('processing', 'requires_action');
CREATE INDEX upgrades_to_expire ON upgrades (expires_at) WHERE status IN ('processing', 'requires_action');
CREATE TABLE removal_requests (
  account_id        uuid NOT NULL,
  id                uuid NOT NULL,
  payment_method_id uuid NOT NULL,
  kind              text NOT NULL CHECK (kind IN ('support', 'when_paid')),
  status            text NOT NULL CHECK (status IN ('open', 'done', 'declined', 'withdrawn')),
  note              text NOT NULL DEFAULT '',
  created_at        timestamptz NOT NULL,
  resolved_at       timestamptz,
  resolved_by       text NOT NULL DEFAULT '',
  answer            text NOT NULL DEFAULT '', -- of whoever resolved it, for the customer
  PRIMARY KEY (account_id, id),
  FOREIGN KEY (account_id, payment_method_id) REFERENCES payment_methods (account_id, id)
);
CREATE UNIQUE INDEX removal_requests_one_open ON removal_requests (account_id, payment_method_id) WHERE status = 'open';

-- From a provider's reference to the record, before the account is known.
CREATE TABLE provider_refs (
  provider   text NOT NULL,
  ref        text NOT NULL,
  account_id uuid NOT NULL,
  kind       text NOT NULL,              -- payment, refund, payment_method, customer
  record_id  uuid NOT NULL,
  PRIMARY KEY (provider, ref)
);
-- Inbound webhooks: stored before they are believed.
CREATE TABLE provider_events (
  provider     text NOT NULL,
  event_id     text NOT NULL,
  type         text NOT NULL,
  object       text NOT NULL DEFAULT '',
  object_ref   text NOT NULL DEFAULT '',
  payload      bytea NOT NULL,
  received_at  timestamptz NOT NULL,
  processed_at timestamptz,
  attempts     integer NOT NULL DEFAULT 0,
  next_try_at  timestamptz,
  outcome      text NOT NULL DEFAULT '',
  PRIMARY KEY (provider, event_id)
);
CREATE INDEX provider_events_pending ON provider_events (next_try_at) WHERE processed_at IS NULL;
-- One budget of attempts per card, whoever asks: top-ups, dunning and upgrades, of whichever account.
CREATE TABLE card_attempts (
  fingerprint   text NOT NULL,
  id            uuid NOT NULL,
  at            timestamptz NOT NULL,
  declined      boolean NOT NULL,
  decline_class text NOT NULL DEFAULT '',
  PRIMARY KEY (fingerprint, id)
);
CREATE INDEX card_attempts_recent ON card_attempts (fingerprint, at);

GRANT SELECT, INSERT, UPDATE ON provider_customers, payment_setups, payment_methods, payments, refunds, disputes, top_ups, upgrades,
  removal_requests, provider_refs, provider_events TO accrue_app;
GRANT SELECT, INSERT, DELETE ON card_attempts TO accrue_app;

-- +goose Down
DROP TABLE card_attempts, provider_events, provider_refs, removal_requests, upgrades, top_ups, disputes, refunds, payments, payment_methods, payment_setups, provider_customers;
