-- The nodes of this database. One that has not said for 15 seconds that it lives does not count.
CREATE TABLE nodes (
    instance_id TEXT NOT NULL PRIMARY KEY,
    -- Drawn at each start.
    boot_id     TEXT NOT NULL,
    address     TEXT NOT NULL,
    version     TEXT NOT NULL,
    started_at  INTEGER NOT NULL,
    lease_until INTEGER NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('serving', 'left'))
) STRICT;
