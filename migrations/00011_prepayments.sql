-- +goose Up
-- A contract may have its account pay ahead: that is billed by an invoice of its own.
ALTER TABLE invoices DROP CONSTRAINT invoices_kind_check, ADD CONSTRAINT invoices_kind_check CHECK (kind IN ('cycle', 'threshold', 'prepayment'));

-- +goose Down
ALTER TABLE invoices DROP CONSTRAINT invoices_kind_check, ADD CONSTRAINT invoices_kind_check CHECK (kind IN ('cycle', 'threshold')) NOT VALID;
