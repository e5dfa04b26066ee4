-- +goose Up

-- The least version of the DomainKey under which a record may be written. 0: any.
CREATE TABLE rotation (
    one   INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    floor INTEGER NOT NULL
);

INSERT INTO rotation VALUES (1, 0);

-- How far the records are wrapped anew. A slice is the tenants whose ids begin
-- with one hexadecimal digit.
CREATE TABLE rewraps (
    slice   INTEGER NOT NULL PRIMARY KEY, -- 0 to 15
    done    INTEGER NOT NULL, -- no record of the slice needs an older version than this
    version INTEGER NOT NULL, -- that the numbers are about
    total   INTEGER NOT NULL, -- records in the slice
    looked  INTEGER NOT NULL, -- at so many
    refused INTEGER NOT NULL  -- that the core did not wrap anew: deleted ones, say
);

INSERT INTO rewraps VALUES (0, 0, 0, 0, 0, 0), (1, 0, 0, 0, 0, 0), (2, 0, 0, 0, 0, 0), (3, 0, 0, 0, 0, 0),
    (4, 0, 0, 0, 0, 0), (5, 0, 0, 0, 0, 0), (6, 0, 0, 0, 0, 0), (7, 0, 0, 0, 0, 0), (8, 0, 0, 0, 0, 0),
    (9, 0, 0, 0, 0, 0), (10, 0, 0, 0, 0, 0), (11, 0, 0, 0, 0, 0), (12, 0, 0, 0, 0, 0), (13, 0, 0, 0, 0, 0),
    (14, 0, 0, 0, 0, 0), (15, 0, 0, 0, 0, 0);
