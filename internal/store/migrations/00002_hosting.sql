-- +goose Up

-- Every name that a site answers to belongs to one site only.
CREATE TABLE site_names (
    name      ${KEY} NOT NULL PRIMARY KEY, -- or a wildcard such as *.example.test
    site      ${KEY} NOT NULL,
    account   ${KEY} NOT NULL,
    -- Labels in reverse, each with a dot behind it: what lies below a name is a
    -- range.
    backwards ${KEY} NOT NULL,
    -- What the name looks like: names with the same one can be taken for each
    -- other.
    skeleton  ${KEY} NOT NULL
);
CREATE INDEX site_names_by_site ON site_names (site);
CREATE INDEX site_names_backwards ON site_names (backwards);
CREATE INDEX site_names_by_skeleton ON site_names (skeleton);

-- What a declared thing names: a site its account, servers and the site that it
-- is a sub-site of. The role says what for.
CREATE TABLE object_uses (
    kind      ${KEY} NOT NULL,
    name      ${KEY} NOT NULL,
    role      ${KEY} NOT NULL,
    used_kind ${KEY} NOT NULL,
    used_name ${KEY} NOT NULL,
    PRIMARY KEY (used_kind, used_name, role, kind, name)
);
CREATE INDEX object_uses_by_user ON object_uses (kind, name);

-- Numbers of the system users of accounts. A row is never deleted: files on
-- servers and in backups carry the number.
CREATE TABLE uids (
    uid     BIGINT NOT NULL PRIMARY KEY,
    account ${KEY} NOT NULL UNIQUE
);

-- Every generation of things that can be put back to an earlier one.
CREATE TABLE object_history (
    kind       ${KEY} NOT NULL,
    name       ${KEY} NOT NULL,
    generation BIGINT NOT NULL,
    document   TEXT   NOT NULL, -- JSON; empty where it was deleted
    changed_at BIGINT NOT NULL,
    changed_by TEXT   NOT NULL,
    PRIMARY KEY (kind, name, generation)
);
CREATE INDEX object_history_by_time ON object_history (changed_at);
