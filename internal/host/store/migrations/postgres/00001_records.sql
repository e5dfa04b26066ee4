-- +goose Up

-- Sealed records.
CREATE TABLE records (
    tenant   uuid     NOT NULL,
    id       uuid     NOT NULL,
    type     smallint NOT NULL, -- wire.RecordType: 1 app, 2 key, 3 key version, and so on
    version  bigint   NOT NULL, -- 0 unless the record is a version
    revision bigint   NOT NULL, -- 1 or more
    used     bigint   NOT NULL, -- of a key: the version to send along with it
    hidden   boolean  NOT NULL, -- left out of listings
    due      bigint   NOT NULL, -- of a secret: when to offer it for a purge, Unix milliseconds; 0: never
    sealed   bytea    NOT NULL,
    PRIMARY KEY (tenant, id, type, version)
);

-- Sealed bytes are random: compressing them is work for nothing.
ALTER TABLE records ALTER COLUMN sealed SET STORAGE EXTERNAL;

-- A listing costs what it returns, however many hidden keys and old versions
-- the tenant has.
CREATE INDEX records_listing ON records (tenant, type, id) WHERE NOT hidden AND type IN (1, 2, 5);

-- What is to be purged, soonest first.
CREATE INDEX records_purges ON records (due) WHERE due <> 0;

-- Signed requests that have been executed.
CREATE TABLE replays (
    tenant uuid   NOT NULL,
    tag    uuid   NOT NULL, -- 16 bytes
    until  bigint NOT NULL, -- Unix milliseconds
    PRIMARY KEY (tenant, tag)
);

CREATE INDEX replays_until ON replays (until);

-- Tenants whose keys are yet to be swept.
CREATE TABLE sweeps (
    tenant   uuid   NOT NULL PRIMARY KEY,
    revision bigint NOT NULL -- of the app record that made it due
);

-- Which records have changed lately, for the nodes that remember them. Rows are
-- named by the transaction that wrote them: transactions do not commit in the
-- order of any sequence, but what was in progress is known (docs/architecture.md).
CREATE TABLE changes (
    xid     xid8        NOT NULL DEFAULT pg_current_xact_id(),
    at      timestamptz NOT NULL DEFAULT now(),
    tenant  uuid        NOT NULL,
    id      uuid        NOT NULL,
    type    smallint    NOT NULL,
    version bigint      NOT NULL
);

CREATE INDEX changes_xid ON changes (xid);
CREATE INDEX changes_at ON changes (at);
