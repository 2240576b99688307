CREATE TABLE departments (
    name          TEXT    NOT NULL PRIMARY KEY,
    description   TEXT,
    manager_email TEXT,
    source        TEXT    NOT NULL,
    created_at    BIGINT NOT NULL,
    updated_at    BIGINT NOT NULL,
    version       BIGINT NOT NULL
);

-- Counts changes, so that a change can say which state it was made on.
ALTER TABLE access_control_entities ADD COLUMN version BIGINT NOT NULL DEFAULT 1;

-- What the rows of an epoch compile to, so that nodes can tell that they decide by the same rules.
ALTER TABLE authz_epoch ADD COLUMN set_hash TEXT;

-- Rules that were made under a key of their maker, so that a repeated request makes no second one.
CREATE TABLE rule_requests (
    owner_id   TEXT    NOT NULL,
    key        TEXT    NOT NULL,
    digest     TEXT    NOT NULL,
    rule_id    TEXT    NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (owner_id, key)
);

CREATE INDEX rule_requests_expires ON rule_requests (expires_at);
