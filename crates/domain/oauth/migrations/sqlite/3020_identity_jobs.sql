-- Jobs of the identity plane: which node has one, and what its last run did. One row a job.
CREATE TABLE identity_jobs (
    name        TEXT NOT NULL PRIMARY KEY,
    holder      TEXT,
    -- Rises with every claim, so that a node which lost the job notices.
    epoch       INTEGER NOT NULL,
    held_until  INTEGER NOT NULL,
    started_at  INTEGER NOT NULL,
    finished_at INTEGER,
    -- JSON.
    result      TEXT
) STRICT;
INSERT INTO identity_jobs (name, epoch, held_until, started_at) VALUES ('oauth_cleanup', 0, 0, 0);
