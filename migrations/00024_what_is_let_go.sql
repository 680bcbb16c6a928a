-- +goose Up
-- What is kept for a time only, by when it was done with: the provider's webhooks, and attempts at cards (their identifiers begin
-- with the real time). Attempts are looked up by fingerprint, which their key begins with. The service may remove these, what it
-- has refused of usage, and reservations that are settled.
CREATE INDEX provider_events_processed ON provider_events (processed_at) WHERE processed_at IS NOT NULL;
CREATE INDEX card_attempts_oldest ON card_attempts (id);
DROP INDEX card_attempts_recent;
GRANT DELETE ON provider_events, usage_rejects, reservations TO accrue_app;

-- +goose Down
REVOKE DELETE ON provider_events, usage_rejects, reservations FROM accrue_app;
CREATE INDEX card_attempts_recent ON card_attempts (fingerprint, at);
DROP INDEX card_attempts_oldest, provider_events_processed;
