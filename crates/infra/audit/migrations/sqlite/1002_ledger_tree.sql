-- The Merkle tree over the records of a stream (RFC 6962): the frontier moves with the head, in the transaction of the batch.
-- It is null for a stream of an older version until the next start.
ALTER TABLE ledger_streams ADD COLUMN frontier BLOB;

-- Complete tiles of 256 hashes (C2SP tlog-tiles). `root` stands before `hashes`, so that a row of roots is read without the
-- pages that the hashes fill.
CREATE TABLE ledger_tiles (
    stream TEXT    NOT NULL,
    level  INTEGER NOT NULL,
    tile   INTEGER NOT NULL,
    root   BLOB    NOT NULL,
    hashes BLOB    NOT NULL,
    PRIMARY KEY (stream, level, tile)
) STRICT;

-- Signed checkpoints (C2SP signed note). `witnessed` is JSON: name of the witness to the time in epoch milliseconds.
CREATE TABLE ledger_checkpoints (
    stream    TEXT    NOT NULL,
    size      INTEGER NOT NULL,
    at        INTEGER NOT NULL,
    root      TEXT    NOT NULL,
    note      TEXT    NOT NULL,
    key_id    TEXT    NOT NULL,
    witnessed TEXT    NOT NULL,
    PRIMARY KEY (stream, size)
) STRICT;

-- Public keys that signed checkpoints. `key_id` is the beginning of the verifier key: name and 8 hex digits.
CREATE TABLE ledger_keys (
    key_id     TEXT    NOT NULL PRIMARY KEY,
    vkey       TEXT    NOT NULL,
    state      TEXT    NOT NULL CHECK (state IN ('active', 'retired')),
    valid_from INTEGER NOT NULL,
    retired_at INTEGER,
    ledger_id  TEXT    NOT NULL
) STRICT;
