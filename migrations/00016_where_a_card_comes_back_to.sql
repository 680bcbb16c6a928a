-- +goose Up
ALTER TABLE payment_methods ADD COLUMN return_url text NOT NULL DEFAULT ''; -- where the customer comes back to; fixed with the intent, as the provider's key is for one request

-- +goose Down
ALTER TABLE payment_methods DROP COLUMN return_url;
