CREATE TABLE departments (
    name          TEXT    NOT NULL PRIMARY KEY,
    description   TEXT,
    manager_email TEXT,
    source        TEXT    NOT NULL,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    version       INTEGER NOT NULL
) STRICT;

-- Counts changes, so that a change can say which state it was made on.
ALTER TABLE access_control_entities ADD COLUMN version INTEGER NOT NULL DEFAULT 1;

-- What the rows of an epoch compile to, so that nodes can tell that they decide by the same rules.
ALTER TABLE authz_epoch ADD COLUMN set_hash TEXT;

-- Rules that were made under a key of their maker, so that a repeated request makes no second one.
CREATE TABLE rule_requests (
    owner_id   TEXT    NOT NULL,
    key        TEXT    NOT NULL,
    digest     TEXT    NOT NULL,
    rule_id    TEXT    NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (owner_id, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX rule_requests_expires ON rule_requests (expires_at);
