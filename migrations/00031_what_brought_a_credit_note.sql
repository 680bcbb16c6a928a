-- +goose Up
-- Which invoice takes usage back and brought the note with it: so much of what it takes back was owed, though it was written off.
-- Until now that was told by who had written the note, and when.
ALTER TABLE credit_notes ADD COLUMN by_invoice_id uuid,
  ADD CONSTRAINT credit_notes_by_invoice FOREIGN KEY (account_id, by_invoice_id) REFERENCES invoices (account_id, id);
UPDATE credit_notes n SET by_invoice_id = i.id FROM invoices i
WHERE n.actor = 'system' AND i.account_id = n.account_id AND i.kind = 'cycle' AND i.finalized_at = n.issued_at AND i.id <> n.invoice_id;

-- +goose Down
ALTER TABLE credit_notes DROP COLUMN by_invoice_id;
