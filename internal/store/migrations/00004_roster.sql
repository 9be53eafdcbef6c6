-- +goose Up
-- Certificates of agents that are taken, in the order of their issue. Revocation
-- is not to be here.
CREATE TABLE certificates (
    id      ${SERIAL},
    server  ${KEY}  NOT NULL,
    serial  ${KEY}  NOT NULL, -- hexadecimal
    issued  BIGINT  NOT NULL,
    expires BIGINT  NOT NULL
);
CREATE UNIQUE INDEX certificates_by_serial ON certificates (server, serial);

CREATE TABLE invitations (
    hash    ${KEY}  NOT NULL PRIMARY KEY, -- of the token's secret
    server  ${KEY}  NOT NULL,
    expires BIGINT  NOT NULL,
    used    BIGINT  NOT NULL -- 0 while it was not
);
CREATE INDEX invitations_by_server ON invitations (server);
