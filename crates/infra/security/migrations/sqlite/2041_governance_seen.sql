-- Blocks of conversations that were refused, so that they are known when the conversation is sent again.
CREATE TABLE governance_seen (
    context_id TEXT    NOT NULL,
    -- Keyed digest of the block.
    block_hash TEXT    NOT NULL,
    outcome    TEXT    NOT NULL,
    at         INTEGER NOT NULL,
    PRIMARY KEY (context_id, block_hash)
) STRICT;

CREATE INDEX governance_seen_at ON governance_seen (at);
