-- +goose Up
-- Which credit has paid how much of an invoice, so that what is given back of the invoice is credit again, and no money.
CREATE TABLE credit_draws (
  account_id uuid NOT NULL,
  invoice_id uuid NOT NULL,
  grant_id   uuid NOT NULL,
  amount     bigint NOT NULL CHECK (amount > 0),
  returned   bigint NOT NULL DEFAULT 0 CHECK (returned BETWEEN 0 AND amount),
  PRIMARY KEY (account_id, invoice_id, grant_id),
  FOREIGN KEY (account_id, invoice_id) REFERENCES invoices (account_id, id),
  FOREIGN KEY (account_id, grant_id) REFERENCES credit_grants (account_id, id)
);
GRANT SELECT, INSERT, UPDATE ON credit_draws TO accrue_app;
ALTER TABLE credit_notes ADD COLUMN to_credit bigint NOT NULL DEFAULT 0 CHECK (to_credit >= 0); -- had been paid by credit: credit again
ALTER TABLE credit_notes DROP CONSTRAINT credit_notes_check, ADD CONSTRAINT credit_notes_parts CHECK (to_due + to_funds + to_credit = amount) NOT VALID;
-- What was drawn before was not written down grant by grant. The journal has how much of each invoice credit paid, in which order, and the
-- grants have what was spent of them; laid beside one another, each in its order, they give a grant for all of it.
-- +goose StatementBegin
CREATE FUNCTION pg_temp.record_of(reference text) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
  SELECT string_agg(to_hex(substr(bits, 3 + 4 * i, 4)::bit(4)::integer), '' ORDER BY i)::uuid
  FROM (SELECT string_agg((strpos('0123456789abcdefghjkmnpqrstvwxyz', substr(reference, n, 1)) - 1)::bit(5)::text, '' ORDER BY n) AS bits
        FROM generate_series(5, 30) n) digits, generate_series(0, 31) i
$$;
-- +goose StatementEnd
INSERT INTO credit_draws (account_id, invoice_id, grant_id, amount)
WITH drawn AS (
  SELECT account_id, pg_temp.record_of(reference) AS invoice_id, total AS amount, sum(total) OVER (PARTITION BY account_id ORDER BY sequence) AS upto
  FROM ledger_transactions WHERE kind = 'promo_applied'
), spent AS (
  SELECT account_id, id AS grant_id, amount, sum(amount) OVER (PARTITION BY account_id ORDER BY priority, expires_at NULLS LAST, granted_at, id) AS upto
  FROM (SELECT g.account_id, g.id, g.priority, g.expires_at, g.granted_at, g.amount - g.remaining - coalesce(x.total, 0) AS amount
        FROM credit_grants g
        LEFT JOIN (SELECT account_id, pg_temp.record_of(reference) AS grant_id, total FROM ledger_transactions WHERE kind = 'promo_expired') x
          ON x.account_id = g.account_id AND x.grant_id = g.id) g
)
SELECT d.account_id, d.invoice_id, s.grant_id, sum(least(d.upto, s.upto) - greatest(d.upto - d.amount, s.upto - s.amount))
FROM drawn d JOIN spent s ON s.account_id = d.account_id AND s.upto - s.amount < d.upto AND d.upto - d.amount < s.upto
WHERE s.amount > 0
GROUP BY 1, 2, 3;
DROP FUNCTION pg_temp.record_of(text);

-- +goose Down
ALTER TABLE credit_notes DROP COLUMN to_credit, ADD CONSTRAINT credit_notes_check CHECK (to_due + to_funds = amount) NOT VALID;
DROP TABLE credit_draws;
