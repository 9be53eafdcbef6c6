-- +goose Up
-- Servers on which an account has, or had, a site: its system user is there. What
-- sites of before were on is found when they change, or by regenerate.
CREATE TABLE account_servers (
    account ${KEY} NOT NULL,
    server  ${KEY} NOT NULL,
    PRIMARY KEY (account, server)
);
INSERT INTO account_servers (account, server)
    SELECT DISTINCT a.used_name, s.used_name FROM object_uses AS a
    JOIN object_uses AS s ON s.kind = a.kind AND s.name = a.name AND s.used_kind = 'server'
    WHERE a.kind = 'site' AND a.role = 'account';
