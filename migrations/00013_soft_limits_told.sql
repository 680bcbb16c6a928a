-- +goose Up
ALTER TABLE entitlements ADD COLUMN limits_told jsonb NOT NULL DEFAULT '{}'; -- by meter: the period and the soft limit of which the account was told that it is reached

-- +goose Down
ALTER TABLE entitlements DROP COLUMN limits_told;
