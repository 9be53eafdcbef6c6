-- +goose Up
CREATE TABLE users (
    id       ${SERIAL},
    name     ${KEY}  NOT NULL UNIQUE,
    role     ${KEY}  NOT NULL,
    account  ${KEY}  NOT NULL, -- of a customer, empty for staff
    password TEXT    NOT NULL, -- a hash that says how it was made
    created  BIGINT  NOT NULL,
    failures INTEGER NOT NULL, -- wrong passwords since the last right one
    locked   BIGINT  NOT NULL  -- until when no password is looked at
);
CREATE INDEX users_by_account ON users (account);

-- Browsers that users are signed in with. What a browser shows is not here, only
-- its hash.
CREATE TABLE sign_ins (
    id      ${SERIAL},
    hash    ${KEY} NOT NULL UNIQUE,
    user_id BIGINT NOT NULL,
    created BIGINT NOT NULL,
    seen    BIGINT NOT NULL,
    expires BIGINT NOT NULL,
    address TEXT   NOT NULL,
    agent   TEXT   NOT NULL
);
CREATE INDEX sign_ins_by_user ON sign_ins (user_id);

CREATE TABLE access_tokens (
    id      ${SERIAL},
    hash    ${KEY} NOT NULL UNIQUE,
    user_id BIGINT NOT NULL,
    name    TEXT   NOT NULL,
    scope   ${KEY} NOT NULL,
    created BIGINT NOT NULL,
    expires BIGINT NOT NULL,
    seen    BIGINT NOT NULL
);
CREATE INDEX access_tokens_by_user ON access_tokens (user_id);
