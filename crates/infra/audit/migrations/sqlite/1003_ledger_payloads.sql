-- What a record commits to and does not hold. The key is led by the class, so that each class ends at its own front and grows at
-- its own end; within a class all keys grow with time, and without a rowid a row is one insertion. Body and salt stand last: a pass
-- over the other columns reads no page of a long body. An erased row has neither, and names the record of its erasure.
CREATE TABLE ledger_payloads (
    class        TEXT    NOT NULL,
    stream       TEXT    NOT NULL,
    seq          INTEGER NOT NULL,
    role         TEXT    NOT NULL,
    at           INTEGER NOT NULL,
    subject_user TEXT,
    commitment   TEXT    NOT NULL,
    size         INTEGER NOT NULL,
    media_type   TEXT    NOT NULL,
    encoding     TEXT,
    erased_at    INTEGER,
    erased_by    TEXT,
    body_ref     TEXT,
    salt         BLOB,
    body         BLOB,
    PRIMARY KEY (class, stream, seq, role)
) STRICT, WITHOUT ROWID;

-- Bodies that are too large for the transaction of their record: written before it, and named by it. One that no record names
-- within ten minutes is swept.
CREATE TABLE ledger_bodies (
    id    TEXT    NOT NULL PRIMARY KEY,
    at    INTEGER NOT NULL,
    named INTEGER NOT NULL,
    body  BLOB    NOT NULL
) STRICT;

CREATE INDEX ledger_bodies_unnamed ON ledger_bodies (at) WHERE named = 0;
