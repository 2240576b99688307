-- Findings that are let pass: by rule, and by value, tool or place.
CREATE TABLE governance_allowlist (
    id         TEXT    NOT NULL PRIMARY KEY,
    rule_id    TEXT    NOT NULL,
    -- Keyed digest of the one value, as findings bear it.
    hmac       TEXT,
    tool       TEXT,
    pointer    TEXT,
    reason     TEXT    NOT NULL,
    owner      TEXT    NOT NULL,
    created_by TEXT    NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT
);

-- One row: the epoch rises with every change, so that each node knows when its copy is old.
CREATE TABLE governance_allowlist_epoch (
    one   BIGINT NOT NULL PRIMARY KEY CHECK (one = 1),
    epoch BIGINT NOT NULL
);
INSERT INTO governance_allowlist_epoch (one, epoch) VALUES (1, 0);
