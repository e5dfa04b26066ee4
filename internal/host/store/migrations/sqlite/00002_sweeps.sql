-- +goose Up

-- The revision of the app that made the sweep due, so that the end of an earlier
-- sweep does not take a later one off. 0: before this column.
ALTER TABLE sweeps ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
