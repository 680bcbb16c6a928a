-- +goose Up
-- What may be used of a meter in a period is bounded, so that it always has a price. The bound goes with the total, since a total is
-- added to without being read. Rows from before have the one that the column's digits gave them until they are added to.
ALTER TABLE entitlements ADD COLUMN max_quantities jsonb NOT NULL DEFAULT '{}'; -- by meter; one that is not here: as much as is stored of anything
ALTER TABLE usage_totals ADD COLUMN max_quantity numeric(24, 9) NOT NULL DEFAULT 999999999999999.999999999;
ALTER TABLE usage_totals ADD CONSTRAINT usage_totals_max_quantity CHECK (quantity + reserved <= max_quantity) NOT VALID;

-- +goose Down
ALTER TABLE usage_totals DROP COLUMN max_quantity;
ALTER TABLE entitlements DROP COLUMN max_quantities;
