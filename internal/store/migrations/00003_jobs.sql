-- +goose Up
CREATE TABLE jobs (
    id         ${SERIAL},
    account    ${KEY}  NOT NULL,
    server     ${KEY}  NOT NULL, -- empty for what no agent does
    kind       ${KEY}  NOT NULL,
    object     ${KEY}  NOT NULL,
    generation BIGINT  NOT NULL,
    state      ${KEY}  NOT NULL,
    payload    TEXT    NOT NULL, -- JSON; empty where it follows from declared things
    attempts   INTEGER NOT NULL,
    drops      INTEGER NOT NULL, -- links that broke while it was being done
    progress   TEXT    NOT NULL,
    percent    INTEGER NOT NULL,
    error      TEXT    NOT NULL,
    field      TEXT    NOT NULL,
    result     TEXT    NOT NULL, -- JSON; empty where there is no more to say
    who        TEXT    NOT NULL,
    created    BIGINT  NOT NULL,
    started    BIGINT  NOT NULL,
    finished   BIGINT  NOT NULL
);
CREATE UNIQUE INDEX jobs_pending ON jobs (server, kind, object) WHERE state = 'pending';
CREATE INDEX jobs_active ON jobs (server, state, object) WHERE state IN ('pending', 'running');
CREATE INDEX jobs_failed ON jobs (id) WHERE state = 'failed';
CREATE INDEX jobs_by_account ON jobs (account, id);
CREATE INDEX jobs_by_server ON jobs (server, id);
CREATE INDEX jobs_by_object ON jobs (object, id);
CREATE INDEX jobs_by_end ON jobs (finished) WHERE finished > 0;

-- A job starts when every job that it comes after is done.
CREATE TABLE job_after (
    job   BIGINT NOT NULL,
    after BIGINT NOT NULL,
    PRIMARY KEY (job, after)
);
CREATE INDEX job_after_by_after ON job_after (after);

-- The last number that was given to a job about something that has no
-- generation of its own.
CREATE TABLE job_generations (
    name ${KEY} NOT NULL PRIMARY KEY,
    last BIGINT NOT NULL
);

-- What each server was last known to serve of each site.
CREATE TABLE site_state (
    server        ${KEY} NOT NULL,
    site          ${KEY} NOT NULL,
    generation    BIGINT NOT NULL, -- that it answers with, 0 for none
    url           TEXT   NOT NULL,
    document_root TEXT   NOT NULL,
    state         TEXT   NOT NULL,
    reason        TEXT   NOT NULL,
    at            BIGINT NOT NULL,
    PRIMARY KEY (server, site)
);
CREATE INDEX site_state_by_site ON site_state (site);
