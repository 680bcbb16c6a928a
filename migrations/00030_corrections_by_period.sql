-- +goose Up
-- The corrections of a meter's usage in a period: an invoice tells what they changed, however long ago that was.
CREATE INDEX usage_corrections_of_period ON usage_corrections (account_id, period_start, meter);

-- +goose Down
DROP INDEX usage_corrections_of_period;
