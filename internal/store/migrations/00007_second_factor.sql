-- +goose Up
-- The second factor of a user: the secret that it shares with an app, empty for
-- none, and the last step of time whose code was used, so that none is used twice.
ALTER TABLE users ADD COLUMN factor TEXT NOT NULL DEFAULT '';
ALTER TABLE users ADD COLUMN factor_step BIGINT NOT NULL DEFAULT 0;

-- Codes for who has lost the app, each for once, by their hashes.
CREATE TABLE spare_codes (
    user_id BIGINT NOT NULL,
    hash    ${KEY} NOT NULL,
    PRIMARY KEY (user_id, hash)
);
