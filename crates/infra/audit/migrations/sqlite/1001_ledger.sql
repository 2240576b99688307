-- One stream per node. The head moves only by a guarded update (epoch and old head), so a stream never forks.
CREATE TABLE ledger_streams (
    stream        TEXT    NOT NULL PRIMARY KEY,
    origin        TEXT    NOT NULL,
    node_id       TEXT    NOT NULL,
    epoch         INTEGER NOT NULL,
    head_seq      INTEGER NOT NULL,
    head_hash     TEXT    NOT NULL,
    created_at    INTEGER NOT NULL,
    closed_at     INTEGER,
    closed_reason TEXT,
    predecessor   TEXT
) STRICT;

-- Every key grows with time: an append dirties the last page of each and no other. Look-ups by anything else go to
-- `lookup.db`, a copy of these columns with ordinary indexes that can be deleted at any time.
CREATE TABLE ledger_entries (
    stream       TEXT    NOT NULL,
    seq          INTEGER NOT NULL,
    id           TEXT    NOT NULL UNIQUE,
    at           INTEGER NOT NULL,
    kind         TEXT    NOT NULL,
    actor_kind   TEXT,
    actor_id     TEXT,
    act_chain    TEXT,
    session_id   TEXT,
    context_id   TEXT,
    task_id      TEXT,
    trace_id     TEXT,
    client_id    TEXT,
    subject_kind TEXT,
    subject_id   TEXT,
    outcome      TEXT,
    reason       TEXT,
    policy       TEXT,
    record       TEXT,
    prev_hash    TEXT    NOT NULL,
    hash         TEXT    NOT NULL,
    PRIMARY KEY (stream, seq)
) STRICT;

CREATE INDEX ledger_entries_at ON ledger_entries (at);

CREATE VIEW v_ledger AS
SELECT stream, seq, id,
       strftime('%Y-%m-%dT%H:%M:%S', at / 1000, 'unixepoch') || '.' || printf('%03d', at % 1000) || 'Z' AS at,
       kind, actor_kind, actor_id, session_id, context_id, task_id, trace_id, client_id, subject_kind, subject_id,
       outcome, reason, policy, record, prev_hash, hash
FROM ledger_entries;
