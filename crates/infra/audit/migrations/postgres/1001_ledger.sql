-- One stream per node. The head moves only by a guarded update (epoch and old head), so a stream never forks.
CREATE TABLE ledger_streams (
    stream        TEXT   NOT NULL PRIMARY KEY,
    origin        TEXT   NOT NULL,
    node_id       TEXT   NOT NULL,
    epoch         BIGINT NOT NULL,
    head_seq      BIGINT NOT NULL,
    head_hash     TEXT   NOT NULL,
    created_at    BIGINT NOT NULL,
    closed_at     BIGINT,
    closed_reason TEXT,
    predecessor   TEXT
);

CREATE TABLE ledger_entries (
    stream       TEXT   NOT NULL,
    seq          BIGINT NOT NULL,
    id           TEXT   NOT NULL UNIQUE,
    at           BIGINT NOT NULL,
    kind         TEXT   NOT NULL,
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
    prev_hash    TEXT   NOT NULL,
    hash         TEXT   NOT NULL,
    PRIMARY KEY (stream, seq)
);

CREATE INDEX ledger_entries_at ON ledger_entries (at, stream, seq);
CREATE INDEX ledger_entries_actor ON ledger_entries (actor_id, at);
CREATE INDEX ledger_entries_trace ON ledger_entries (trace_id);
CREATE INDEX ledger_entries_session ON ledger_entries (session_id, at);
CREATE INDEX ledger_entries_kind ON ledger_entries (kind, at);
CREATE INDEX ledger_entries_subject ON ledger_entries (subject_kind, subject_id, at);

CREATE VIEW v_ledger AS
SELECT stream, seq, id,
       to_char(to_timestamp(at / 1000) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS') || '.'
           || lpad(CAST(at % 1000 AS TEXT), 3, '0') || 'Z' AS at,
       kind, actor_kind, actor_id, session_id, context_id, task_id, trace_id, client_id, subject_kind, subject_id,
       outcome, reason, policy, record, prev_hash, hash
FROM ledger_entries;
