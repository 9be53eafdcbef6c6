-- +goose Up
-- What devices know a user by: random, so that it tells nothing and is not that of
-- a user of another upkeep. Empty before the first passkey.
ALTER TABLE users ADD COLUMN handle ${KEY} NOT NULL DEFAULT '';

-- Passkeys that users sign in with. Private keys are never here.
CREATE TABLE passkeys (
    id         ${SERIAL},
    user_id    BIGINT   NOT NULL,
    credential ${KEY}   NOT NULL UNIQUE, -- what the device calls it, in base64url
    public_key ${BYTES} NOT NULL,        -- as a COSE_Key
    host       ${KEY}   NOT NULL,        -- the relying party that it is for
    name       TEXT     NOT NULL,
    created    BIGINT   NOT NULL,
    seen       BIGINT   NOT NULL, -- when it was last signed in with, 0 for never
    sign_count BIGINT   NOT NULL, -- the last one that the device told, 0 where it has none
    synced     BOOLEAN  NOT NULL
);
CREATE INDEX passkeys_by_user ON passkeys (user_id);
