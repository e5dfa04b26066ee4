-- +goose Up

-- The log of negative facts: which records are at least at which revision. Entries
-- have numbers from 1 on without gaps, and are never changed.
CREATE TABLE facts (
    seq   INTEGER PRIMARY KEY,
    entry BLOB NOT NULL
);
