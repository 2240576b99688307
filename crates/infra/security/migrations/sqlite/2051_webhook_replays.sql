-- Ids of signed messages that were taken, until no message with that id can be in time any more.
CREATE TABLE webhook_replays (
    endpoint   TEXT NOT NULL,
    webhook_id TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (endpoint, webhook_id)
) STRICT;

CREATE INDEX webhook_replays_expiry ON webhook_replays (expires_at);
