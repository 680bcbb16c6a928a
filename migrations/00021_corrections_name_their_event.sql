-- +goose Up
-- A correction is shown with the event that it is about, also once that is not kept any more. Of those from before whose events are gone
-- already, nothing is left to say it: they are named by ''.
ALTER TABLE usage_corrections ADD COLUMN source text NOT NULL DEFAULT '', ADD COLUMN event_id text NOT NULL DEFAULT '';
UPDATE usage_corrections c SET source = e.source, event_id = e.event_id
FROM usage_event_keys k JOIN usage_events e ON e.account_id = k.account_id AND e.occurred_at = k.occurred_at AND e.key = k.key
WHERE k.account_id = c.account_id AND k.key = c.key;

-- +goose Down
ALTER TABLE usage_corrections DROP COLUMN source, DROP COLUMN event_id;
