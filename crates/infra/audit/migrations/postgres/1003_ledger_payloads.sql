-- What a record commits to and does not hold. The key is led by the class, so that each class ends at its own front and grows at
-- its own end. An erased row has neither body nor salt, and names the record of its erasure.
CREATE TABLE ledger_payloads (
    class        TEXT   NOT NULL,
    stream       TEXT   NOT NULL,
    seq          BIGINT NOT NULL,
    role         TEXT   NOT NULL,
    at           BIGINT NOT NULL,
    subject_user TEXT,
    commitment   TEXT   NOT NULL,
    size         BIGINT NOT NULL,
    media_type   TEXT   NOT NULL,
    encoding     TEXT,
    erased_at    BIGINT,
    erased_by    TEXT,
    body_ref     TEXT,
    salt         BYTEA,
    body         BYTEA,
    PRIMARY KEY (class, stream, seq, role)
);

-- Bodies that are too large for the transaction of their record: written before it, and named by it. One that no record names
-- within ten minutes is swept.
CREATE TABLE ledger_bodies (
    id    TEXT   NOT NULL PRIMARY KEY,
    at    BIGINT NOT NULL,
    named BIGINT NOT NULL,
    body  BYTEA  NOT NULL
);

CREATE INDEX ledger_bodies_unnamed ON ledger_bodies (at) WHERE named = 0;
