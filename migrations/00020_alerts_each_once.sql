-- +goose Up
-- Of alerts that are the same, the oldest stays. The store looks for another before it writes one; this holds it to that.
UPDATE usage_alerts d SET removed_at = now()
WHERE d.removed_at IS NULL AND EXISTS (
  SELECT FROM usage_alerts o WHERE o.account_id = d.account_id AND o.removed_at IS NULL AND o.kind = d.kind
    AND o.meter IS NOT DISTINCT FROM d.meter AND o.threshold = d.threshold AND o.id < d.id);
CREATE UNIQUE INDEX usage_alerts_same ON usage_alerts (account_id, kind, meter, threshold) NULLS NOT DISTINCT WHERE removed_at IS NULL;

-- +goose Down
DROP INDEX usage_alerts_same;
