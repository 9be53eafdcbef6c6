-- +goose Up
-- What people changed, with what there was before and after: written in the
-- transaction of the change.
CREATE TABLE audit (
    id     ${SERIAL},
    at     BIGINT NOT NULL,
    who    ${KEY} NOT NULL,
    object ${KEY} NOT NULL,
    what   TEXT   NOT NULL,
    why    TEXT   NOT NULL,
    before TEXT   NOT NULL, -- JSON; empty where there was nothing
    after  TEXT   NOT NULL  -- JSON; empty where there is nothing any more
);
CREATE INDEX audit_by_object ON audit (object, id);
CREATE INDEX audit_by_who ON audit (who, id);
CREATE INDEX audit_by_time ON audit (at);
