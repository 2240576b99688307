-- The counters of the call limit that several nodes share. On SQLite the one node counts in memory and leaves them empty.
CREATE TABLE governance_rate (
    -- user/<id> or session/<user>/<id>
    key     TEXT   NOT NULL PRIMARY KEY,
    -- Theoretical arrival time, in nanoseconds since the epoch.
    tat     BIGINT NOT NULL,
    -- Of the last batch: how many calls were asked for, and how many the rate allowed.
    asked   BIGINT NOT NULL,
    granted BIGINT NOT NULL
);

-- Calls that were charged lately and may be met at another door, by a digest of user and call id.
CREATE TABLE governance_charges (
    key        TEXT   NOT NULL PRIMARY KEY,
    -- One bit a door.
    doors      BIGINT NOT NULL,
    -- What the last claim found: 0 nothing, 1 another door, 2 the same one.
    seen       BIGINT NOT NULL,
    charged_at BIGINT NOT NULL
);

CREATE INDEX governance_charges_at ON governance_charges (charged_at);
