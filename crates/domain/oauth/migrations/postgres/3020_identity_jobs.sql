-- Jobs of the identity plane: which node has one, and what its last run did. One row a job.
CREATE TABLE identity_jobs (
    name        TEXT NOT NULL PRIMARY KEY,
    holder      TEXT,
    -- Rises with every claim, so that a node which lost the job notices.
    epoch       BIGINT NOT NULL,
    held_until  BIGINT NOT NULL,
    started_at  BIGINT NOT NULL,
    finished_at BIGINT,
    -- JSON.
    result      TEXT
);
INSERT INTO identity_jobs (name, epoch, held_until, started_at) VALUES ('oauth_cleanup', 0, 0, 0);
