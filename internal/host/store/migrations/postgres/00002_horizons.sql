-- +goose Up

-- Which notes of changes may be gone: those visible in the oldest of these
-- snapshots. Clocks decide when notes are dropped, but not who has missed some.
CREATE TABLE horizons (
    least    xid8        NOT NULL PRIMARY KEY, -- the first transaction that had not begun
    snapshot pg_snapshot NOT NULL,
    at       timestamptz NOT NULL DEFAULT now()
);

-- With its index. The age of a note is that of the first snapshot that has it.
ALTER TABLE changes DROP COLUMN at;

-- What was noted before counts as seen by nobody who comes later.
INSERT INTO horizons (least, snapshot) SELECT pg_snapshot_xmax(s), s FROM pg_current_snapshot() s;
