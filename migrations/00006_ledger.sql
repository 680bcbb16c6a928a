-- +goose Up
-- The double-entry journal. A posting moves one amount from the account that it credits to the account that
-- it debits, so every row balances by itself and so does every transaction. The service has no UPDATE and no
-- DELETE here; a correction is another transaction.
CREATE TABLE ledger_transactions (
  account_id uuid NOT NULL REFERENCES accounts (id),
  id         uuid NOT NULL,
  sequence   bigint NOT NULL CHECK (sequence > 0),
  kind       text NOT NULL,              -- the recipe
  reference  text NOT NULL,              -- the record that it books; a recipe books a record once
  currency   text NOT NULL,
  total      bigint NOT NULL CHECK (total > 0),         -- sum of the postings' amounts
  postings   smallint NOT NULL CHECK (postings > 0),    -- their number
  description text NOT NULL DEFAULT '',
  booked_at  timestamptz NOT NULL,       -- the account's time
  recorded_at timestamptz NOT NULL,      -- real time
  prev_hash  bytea NOT NULL,
  hash       bytea NOT NULL CHECK (length(hash) = 32),
  UNIQUE (account_id, sequence),
  UNIQUE (account_id, kind, reference)
);
-- The key comes last: of indexes that cost the same the planner takes the youngest, and on a table without
-- statistics all of these do. The postings' check of their transaction would read all of an account.
ALTER TABLE ledger_transactions ADD PRIMARY KEY (account_id, id);
CREATE TABLE ledger_postings (
  account_id     uuid NOT NULL,
  transaction_id uuid NOT NULL,
  number         smallint NOT NULL CHECK (number > 0),
  debit          text NOT NULL,
  credit         text NOT NULL,
  amount         bigint NOT NULL CHECK (amount > 0 AND amount <= 1000000000000000),
  currency       text NOT NULL,
  debit_balance  bigint NOT NULL,        -- of the debited account after this posting (debits less credits)
  credit_balance bigint NOT NULL,        -- of the credited account after this posting
  PRIMARY KEY (account_id, transaction_id, number),
  FOREIGN KEY (account_id, transaction_id) REFERENCES ledger_transactions (account_id, id),
  CHECK (debit <> credit)
);
CREATE TABLE ledger_balances (
  account_id uuid NOT NULL REFERENCES accounts (id),
  name       text NOT NULL,
  currency   text NOT NULL,
  balance    bigint NOT NULL CHECK (balance BETWEEN -1000000000000000 AND 1000000000000000),
  PRIMARY KEY (account_id, name, currency)
);
-- One hash a day over the heads of all accounts' chains, with what the invariant checker found. Written once.
CREATE TABLE ledger_proofs (
  day         date PRIMARY KEY,          -- UTC
  accounts    integer NOT NULL,
  root        bytea NOT NULL CHECK (length(root) = 32),
  results     jsonb NOT NULL,
  recorded_at timestamptz NOT NULL
);
GRANT SELECT, INSERT ON ledger_proofs TO accrue_app;
GRANT SELECT, INSERT ON ledger_transactions, ledger_postings TO accrue_app;
GRANT SELECT, INSERT, UPDATE ON ledger_balances TO accrue_app;

-- +goose Down
DROP TABLE ledger_proofs, ledger_balances, ledger_postings, ledger_transactions;
