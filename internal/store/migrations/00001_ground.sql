-- Instants are nanoseconds since 1970 in UTC, 0 for none: exact in both
-- databases, and ordered as numbers.

-- +goose Up
CREATE TABLE objects (
    kind       ${KEY}  NOT NULL,
    name       ${KEY}  NOT NULL,
    generation BIGINT  NOT NULL,
    document   TEXT    NOT NULL, -- JSON
    changed_at BIGINT  NOT NULL,
    changed_by TEXT    NOT NULL,
    -- A deleted object keeps its generation for a while, so that the number is
    -- never given twice to one name.
    deleted    BOOLEAN NOT NULL,
    PRIMARY KEY (kind, name)
);

CREATE TABLE events (
    id     ${SERIAL},
    at     BIGINT NOT NULL,
    kind   ${KEY} NOT NULL,
    who    TEXT   NOT NULL,
    object ${KEY} NOT NULL,
    what   TEXT   NOT NULL,
    why    TEXT   NOT NULL
);
CREATE INDEX events_by_object ON events (object, id);
CREATE INDEX events_by_kind ON events (kind, id);
CREATE INDEX events_by_time ON events (at);

CREATE TABLE overrides (
    id     ${SERIAL},
    pool   ${KEY} NOT NULL,
    member ${KEY} NOT NULL,
    state  TEXT   NOT NULL,
    who    TEXT   NOT NULL,
    why    TEXT   NOT NULL,
    at     BIGINT NOT NULL
);

CREATE TABLE states (
    key   ${KEY}  NOT NULL PRIMARY KEY,
    value ${BYTES} NOT NULL
);

CREATE TABLE zones (
    name    ${KEY}   NOT NULL PRIMARY KEY,
    content ${BYTES} NOT NULL
);

CREATE TABLE zone_deltas (
    id      ${SERIAL},
    zone    ${KEY}   NOT NULL,
    content ${BYTES} NOT NULL
);
CREATE INDEX zone_deltas_by_zone ON zone_deltas (zone, id);

CREATE TABLE cursors (
    name  ${KEY} NOT NULL PRIMARY KEY,
    event BIGINT NOT NULL
);
