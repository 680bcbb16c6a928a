-- +goose Up
-- When the service began its last sweep, whichever instance did: one row. A database that was restored to an earlier moment, or that
-- lost its last moments with a machine, shows by it since when it may know less than the payment provider.
CREATE TABLE sweeps (
  one      boolean PRIMARY KEY DEFAULT true CHECK (one),
  began_at timestamptz NOT NULL
);
GRANT SELECT, INSERT, UPDATE ON sweeps TO accrue_app;

-- +goose Down
DROP TABLE sweeps;
