-- +goose Up

-- The least version of the DomainKey under which a record may be written. 0: any.
CREATE TABLE rotation (
    one   boolean NOT NULL PRIMARY KEY CHECK (one),
    floor bigint NOT NULL
);

INSERT INTO rotation VALUES (true, 0);

-- When the store began to take no record under an earlier version.
CREATE TABLE floors (
    version bigint NOT NULL PRIMARY KEY,
    since   bigint NOT NULL -- Unix milliseconds
);

-- How far the records are wrapped anew. A slice is the tenants whose ids begin
-- with one hexadecimal digit.
CREATE TABLE rewraps (
    slice   smallint NOT NULL PRIMARY KEY, -- 0 to 15
    done    bigint NOT NULL, -- no record of the slice needs an older version than this
    version bigint NOT NULL, -- that the numbers are about
    total   bigint NOT NULL, -- records in the slice
    looked  bigint NOT NULL, -- at so many
    refused bigint NOT NULL, -- that the core did not wrap anew: deleted ones, say
    -- What was made under a version or an earlier one, and is still in use.
    compromised bigint NOT NULL DEFAULT 0, -- the version; 0: nothing was counted yet
    counted     bigint NOT NULL DEFAULT 0, -- when, in Unix milliseconds
    keys        bigint NOT NULL DEFAULT 0,
    secrets     bigint NOT NULL DEFAULT 0,
    api_keys    bigint NOT NULL DEFAULT 0,
    tenants     bigint NOT NULL DEFAULT 0 -- that have any of these
);

INSERT INTO rewraps (slice, done, version, total, looked, refused) VALUES (0, 0, 0, 0, 0, 0), (1, 0, 0, 0, 0, 0), (2, 0, 0, 0, 0, 0), (3, 0, 0, 0, 0, 0),
    (4, 0, 0, 0, 0, 0), (5, 0, 0, 0, 0, 0), (6, 0, 0, 0, 0, 0), (7, 0, 0, 0, 0, 0), (8, 0, 0, 0, 0, 0),
    (9, 0, 0, 0, 0, 0), (10, 0, 0, 0, 0, 0), (11, 0, 0, 0, 0, 0), (12, 0, 0, 0, 0, 0), (13, 0, 0, 0, 0, 0),
    (14, 0, 0, 0, 0, 0), (15, 0, 0, 0, 0, 0);
