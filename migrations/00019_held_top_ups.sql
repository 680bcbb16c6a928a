-- +goose Up
-- When an automatic top-up that is held back, by its ceiling or its card, is to be looked at again.
ALTER TABLE auto_top_ups ADD COLUMN held_until timestamptz;
CREATE INDEX auto_top_ups_held ON auto_top_ups (held_until) WHERE held_until IS NOT NULL AND enabled AND state = 'ok';

-- +goose Down
DROP INDEX auto_top_ups_held;
ALTER TABLE auto_top_ups DROP COLUMN held_until;
