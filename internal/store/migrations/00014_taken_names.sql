-- +goose Up
-- The object that had a name which a failed job needed on its server. The job is
-- tried again once something was done about that.
ALTER TABLE jobs ADD COLUMN holder ${KEY} NOT NULL DEFAULT '';
CREATE INDEX jobs_held ON jobs (holder) WHERE holder <> '';
