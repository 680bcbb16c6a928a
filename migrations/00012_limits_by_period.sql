-- +goose Up
-- Late events are held to the limits of their own period.
ALTER TABLE entitlements ADD COLUMN earlier_limits jsonb; -- of each open period before the current one, as period_starts; NULL: as limits

-- +goose Down
ALTER TABLE entitlements DROP COLUMN earlier_limits;
