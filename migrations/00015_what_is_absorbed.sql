-- +goose Up
-- What a spend limit kept off a final invoice and was not taken back since: corrections of what the invoice bills come off
-- it first. The content of the invoice that takes some of it back says so by a sum below zero.
ALTER TABLE invoices ADD COLUMN absorbed bigint NOT NULL DEFAULT 0 CHECK (absorbed >= 0);
UPDATE invoices i SET absorbed = c.absorbed FROM invoice_contents c WHERE c.account_id = i.account_id AND c.invoice_id = i.id AND c.absorbed > 0;
ALTER TABLE invoice_contents DROP CONSTRAINT invoice_contents_absorbed_check;

-- +goose Down
ALTER TABLE invoice_contents ADD CONSTRAINT invoice_contents_absorbed_check CHECK (absorbed >= 0) NOT VALID;
ALTER TABLE invoices DROP COLUMN absorbed;
