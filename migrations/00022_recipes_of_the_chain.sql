-- +goose Up
-- By which recipe a transaction's hash was made (ledger.Recipe); 0 where it was made before that was written down.
ALTER TABLE ledger_transactions ADD COLUMN recipe smallint NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE ledger_transactions DROP COLUMN recipe;
