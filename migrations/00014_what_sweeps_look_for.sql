-- +goose Up
-- Cards whose end is not told of yet, by the last month in which they are good; and the payments of one invoice among
-- all of an account's.
CREATE INDEX payment_methods_expiring ON payment_methods ((exp_year * 12 + exp_month)) WHERE is_default AND expiry_noticed_at IS NULL;
CREATE INDEX payments_of_invoice ON payments (account_id, invoice_id) WHERE invoice_id IS NOT NULL;

-- +goose Down
DROP INDEX payments_of_invoice, payment_methods_expiring;
