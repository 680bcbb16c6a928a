-- +goose Up
-- What is looked for among all that an account has ever had, and is few: credit that is left, invoices that are not paid, what a key
-- has moved in a day and what was topped up automatically in a month, and the refunds of one payment. And refunds that wait for a person,
-- which every sweep counts.
CREATE INDEX credit_grants_unspent ON credit_grants (account_id, id) WHERE remaining > 0;
CREATE INDEX invoices_unpaid ON invoices (account_id, id) WHERE status IN ('draft', 'open', 'uncollectible');
CREATE INDEX payments_by_key ON payments (account_id, actor, created_at) WHERE actor LIKE 'key:%' OR actor LIKE 'platform:%';
CREATE INDEX top_ups_automatic ON top_ups (account_id, created_at) WHERE origin = 'auto';
CREATE INDEX refunds_of_payment ON refunds (account_id, payment_id);
CREATE INDEX refunds_parked ON refunds (account_id) WHERE status = 'parked';

-- +goose Down
DROP INDEX refunds_parked, refunds_of_payment, top_ups_automatic, payments_by_key, invoices_unpaid, credit_grants_unspent;
