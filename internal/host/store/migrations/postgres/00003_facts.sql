-- +goose Up

-- The log of negative facts: which records are at least at which revision. Entries
-- have numbers from 1 on without gaps, and are never changed.
CREATE TABLE facts (
    seq   bigint NOT NULL PRIMARY KEY,
    entry bytea  NOT NULL
);

-- MACs and tags are random: compressing them is work for nothing.
ALTER TABLE facts ALTER COLUMN entry SET STORAGE EXTERNAL;
