-- +goose Up
-- The life of an invoice. What it says stands in invoice_contents and invoice_lines, which are written once,
-- when it is finalised; a draft has no stored content, it is computed from the usage as it stands.
CREATE TABLE invoices (
  account_id      uuid NOT NULL REFERENCES accounts (id),
  id              uuid NOT NULL,
  kind            text NOT NULL CHECK (kind IN ('cycle', 'threshold')),
  status          text NOT NULL CHECK (status IN ('draft', 'open', 'paid', 'void', 'uncollectible')),
  subscription_id uuid NOT NULL,
  period_start    timestamptz NOT NULL,
  period_end      timestamptz NOT NULL,
  currency        text NOT NULL,
  total           bigint NOT NULL DEFAULT 0 CHECK (total >= 0),      -- 0 until finalised
  amount_paid     bigint NOT NULL DEFAULT 0 CHECK (amount_paid >= 0), -- from funds and from cards
  amount_credited bigint NOT NULL DEFAULT 0 CHECK (amount_credited >= 0), -- by credit notes against what was due
  finalize_at     timestamptz NOT NULL,
  finalized_at    timestamptz,
  due_at          timestamptz,
  paid_at         timestamptz,
  closed_at       timestamptz,           -- void or uncollectible
  attempts        integer NOT NULL DEFAULT 0,  -- to charge a card
  next_attempt_at timestamptz,           -- NULL: nothing is planned
  dunning         text NOT NULL DEFAULT 'none' CHECK (dunning IN ('none', 'retrying', 'suspended', 'stopped')),
  created_at      timestamptz NOT NULL,
  updated_at      timestamptz NOT NULL,
  version         bigint NOT NULL DEFAULT 1,
  PRIMARY KEY (account_id, id),
  FOREIGN KEY (account_id, subscription_id) REFERENCES subscriptions (account_id, id),
  CHECK (amount_paid + amount_credited <= total),
  CHECK ((status = 'draft') = (finalized_at IS NULL))
);
CREATE UNIQUE INDEX invoices_one_per_cycle ON invoices (account_id, subscription_id, period_start) WHERE kind = 'cycle';
CREATE INDEX invoices_to_finalize ON invoices (finalize_at) WHERE status = 'draft';
CREATE INDEX invoices_to_collect ON invoices (next_attempt_at) WHERE status = 'open' AND next_attempt_at IS NOT NULL;
CREATE TABLE invoice_contents (
  account_id uuid NOT NULL,
  invoice_id uuid NOT NULL,
  number     text NOT NULL,
  bill_to    jsonb NOT NULL,
  subtotal   bigint NOT NULL,
  tax        bigint NOT NULL DEFAULT 0,
  total      bigint NOT NULL CHECK (total >= 0),
  absorbed   bigint NOT NULL DEFAULT 0 CHECK (absorbed >= 0), -- used beyond the spend limit and not billed
  lines      integer NOT NULL,
  issued_at  timestamptz NOT NULL,
  hash       bytea NOT NULL CHECK (length(hash) = 32),
  PRIMARY KEY (account_id, invoice_id),
  UNIQUE (account_id, number),
  FOREIGN KEY (account_id, invoice_id) REFERENCES invoices (account_id, id),
  CHECK (subtotal + tax = total)
);
CREATE TABLE invoice_lines (
  account_id   uuid NOT NULL,
  invoice_id   uuid NOT NULL,
  number       integer NOT NULL CHECK (number > 0),
  kind         text NOT NULL,
  meter        text,
  description  text NOT NULL,
  period_start timestamptz NOT NULL,
  period_end   timestamptz NOT NULL,
  quantity     numeric(24, 9) NOT NULL DEFAULT 0,
  amount       bigint NOT NULL,
  derivation   jsonb NOT NULL,
  PRIMARY KEY (account_id, invoice_id, number),
  FOREIGN KEY (account_id, invoice_id) REFERENCES invoices (account_id, id)
);
CREATE TABLE credit_notes (
  account_id uuid NOT NULL,
  id         uuid NOT NULL,
  invoice_id uuid NOT NULL,
  number     text NOT NULL,
  amount     bigint NOT NULL CHECK (amount > 0),
  currency   text NOT NULL,
  to_due     bigint NOT NULL CHECK (to_due >= 0),   -- taken off what was due
  to_funds   bigint NOT NULL CHECK (to_funds >= 0), -- given back to the balance
  reason     text NOT NULL,
  actor      text NOT NULL,
  issued_at  timestamptz NOT NULL,
  PRIMARY KEY (account_id, id),
  UNIQUE (account_id, number),
  FOREIGN KEY (account_id, invoice_id) REFERENCES invoices (account_id, id),
  CHECK (to_due + to_funds = amount)
);
CREATE INDEX credit_notes_of_invoice ON credit_notes (account_id, invoice_id);
GRANT SELECT, INSERT, UPDATE ON invoices TO accrue_app;
GRANT SELECT, INSERT ON invoice_contents, invoice_lines, credit_notes TO accrue_app;

-- +goose Down
DROP TABLE credit_notes, invoice_lines, invoice_contents, invoices;
