-- +goose Up
ALTER TABLE top_ups DROP CONSTRAINT top_ups_status_check,
  ADD CONSTRAINT top_ups_status_check CHECK (status IN ('processing', 'requires_action', 'succeeded', 'failed', 'canceled', 'parked'));
UPDATE top_ups t SET status = 'parked', updated_at = p.updated_at, version = t.version + 1
FROM payments p WHERE p.account_id = t.account_id AND p.id = t.payment_id AND p.status = 'parked';

-- +goose Down
UPDATE top_ups SET status = 'processing' WHERE status = 'parked';
ALTER TABLE top_ups DROP CONSTRAINT top_ups_status_check,
  ADD CONSTRAINT top_ups_status_check CHECK (status IN ('processing', 'requires_action', 'succeeded', 'failed', 'canceled'));
