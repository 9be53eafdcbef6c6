-- +goose Up
-- One job of a kind about an object waits for a server at a time; of messages for
-- people each text stands for itself, so that none takes the place of another.
DROP INDEX jobs_pending;
CREATE UNIQUE INDEX jobs_pending ON jobs (server, kind, object) WHERE state = 'pending' AND kind <> 'notification';
-- The messages that an account has not read.
CREATE INDEX jobs_unread ON jobs (account, object) WHERE state = 'pending' AND kind = 'notification';
