-- +goose Up
-- A reconciliation asks for refused events by their ids, and an account may have been refused many.
CREATE INDEX usage_rejects_event ON usage_rejects (account_id, event_id);

-- +goose Down
DROP INDEX usage_rejects_event;
