-- +goose Up
-- Requests that their senders gave a key, so that sending one again does nothing
-- again. A row is written in the transaction of the change that a request makes.
CREATE TABLE requests (
    caller   ${KEY}   NOT NULL,
    key      ${KEY}   NOT NULL, -- a hash of the key
    request  TEXT     NOT NULL, -- a hash of what was asked for
    at       BIGINT   NOT NULL,
    answered BOOLEAN  NOT NULL,
    answer   ${BYTES} NOT NULL, -- sealed; who has the database alone cannot read it
    PRIMARY KEY (caller, key)
);
CREATE INDEX requests_by_time ON requests (at);
