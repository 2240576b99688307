CREATE TABLE banned_ips (
    id          TEXT    NOT NULL PRIMARY KEY,
    network     TEXT    NOT NULL,
    reason      TEXT    NOT NULL,
    source      TEXT    NOT NULL CHECK (source IN ('manual', 'behavioral', 'velocity', 'fingerprint', 'scanner')),
    created_by  TEXT    NOT NULL,
    created_at  BIGINT NOT NULL,
    expires_at  BIGINT,
    hits        BIGINT NOT NULL,
    last_hit_at BIGINT,
    -- When the end was recorded; the row is kept for a while after it.
    ended_at    BIGINT
);

CREATE INDEX banned_ips_network ON banned_ips (network);

-- One row: the epoch rises with every ban that is added or removed, so that each node knows when its copy is old.
CREATE TABLE ban_epoch (
    one   BIGINT NOT NULL PRIMARY KEY CHECK (one = 1),
    epoch BIGINT NOT NULL
);
INSERT INTO ban_epoch (one, epoch) VALUES (1, 0);
