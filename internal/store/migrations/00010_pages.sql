-- +goose Up
-- What pages ask of a million jobs and events. Rows that are simply done, which is
-- nearly all, are in none of the first two.
CREATE INDEX jobs_unsettled ON jobs (object, id) WHERE state IN ('pending', 'running', 'failed');
CREATE INDEX jobs_given_up ON jobs (state, id) WHERE state IN ('superseded', 'cancelled');
-- The last that a server told of itself.
CREATE INDEX jobs_told ON jobs (kind, server, id) WHERE result <> '';
CREATE INDEX jobs_by_kind ON jobs (kind, state, id);
-- What strangers are shown. Queries say it in the same words; without the empty text
-- SQLite would rather gather all of these and sort them.
CREATE INDEX events_of_pools ON events (id)
    WHERE ((object || '' > 'pool/' AND object || '' < 'pool0') OR (object || '' > 'zone/' AND object || '' < 'zone0'));
CREATE INDEX site_state_served ON site_state (server) WHERE generation > 0;
-- The newest of what happened to one thing and to all below it are found without
-- reading what happened.
DROP INDEX events_by_object;
CREATE INDEX events_by_object ON events (object, id, kind, at);
