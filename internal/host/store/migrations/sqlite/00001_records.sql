-- +goose Up

-- Sealed records. A key and its versions are neighbours in the index of names, so
-- that creating a key touches one page of it. The table keeps its
-- rowid: rows then come in the order they were written and fill their pages,
-- where a table ordered by random ids leaves a third of each page empty and
-- writes one page a row.
CREATE TABLE records (
    tenant    BLOB    NOT NULL, -- 16 bytes
    id        BLOB    NOT NULL, -- 16 bytes
    type      INTEGER NOT NULL, -- wire.RecordType: 1 app, 2 key, 3 key version, 5 secret, 6 secret version
    version   INTEGER NOT NULL, -- 0 unless the record is a version
    revision  INTEGER NOT NULL, -- 1 or more
    "primary" INTEGER NOT NULL, -- of a key: the version to send along with it
    hidden    INTEGER NOT NULL, -- 1: left out of listings
    due       INTEGER NOT NULL, -- of a secret: when to offer it for a purge, Unix milliseconds; 0: never
    sealed    BLOB    NOT NULL
);

CREATE UNIQUE INDEX names ON records (tenant, id, type, version);

-- A listing costs what it returns, however many hidden keys and old versions
-- the tenant has.
CREATE INDEX listing ON records (tenant, id) WHERE type = 2 AND hidden = 0;
CREATE INDEX secrets ON records (tenant, id) WHERE type = 5 AND hidden = 0;

-- What is to be purged, soonest first.
CREATE INDEX purges ON records (due) WHERE due != 0;

-- Signed requests that have been executed. An entry is small and is found by
-- its key alone, so the key is the table.
CREATE TABLE replays (
    tenant BLOB    NOT NULL, -- 16 bytes
    tag    BLOB    NOT NULL, -- 16 bytes
    until  INTEGER NOT NULL, -- Unix milliseconds
    PRIMARY KEY (tenant, tag)
) WITHOUT ROWID;

CREATE INDEX replays_until ON replays (until);

-- Tenants whose keys are yet to be swept.
CREATE TABLE sweeps (
    tenant BLOB NOT NULL PRIMARY KEY -- 16 bytes
) WITHOUT ROWID;
