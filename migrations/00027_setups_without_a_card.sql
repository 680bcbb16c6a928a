-- +goose Up
-- Setups of which no card came are removed when they have long expired.
CREATE INDEX payment_setups_unused ON payment_setups (expires_at) WHERE used_by IS NULL;
GRANT DELETE ON payment_setups TO accrue_app;

-- +goose Down
REVOKE DELETE ON payment_setups FROM accrue_app;
DROP INDEX payment_setups_unused;
