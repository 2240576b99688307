-- How far a sink has got in a stream: everything up to `seq` was taken by the other side. `last_error` says why it does not go on.
CREATE TABLE ledger_export_cursors (
    sink       TEXT NOT NULL,
    stream     TEXT NOT NULL,
    seq        INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    last_error TEXT,
    PRIMARY KEY (sink, stream)
) STRICT;
