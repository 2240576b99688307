-- Which child was given which secret, from before its start until its end (SCR-34). Names only, never a value.
CREATE TABLE secret_leases (
    id            TEXT NOT NULL PRIMARY KEY,
    node          TEXT NOT NULL,
    secret_name   TEXT NOT NULL,
    server        TEXT NOT NULL,
    principal_id  TEXT,
    child_id      TEXT NOT NULL,
    inject        TEXT NOT NULL,
    granted_at    BIGINT NOT NULL,
    ended_at      BIGINT,
    end_reason    TEXT,
    ledger_opened TEXT NOT NULL,
    ledger_closed TEXT
);

CREATE INDEX secret_leases_open ON secret_leases (id) WHERE ledger_closed IS NULL;
CREATE INDEX secret_leases_server ON secret_leases (server, granted_at);

CREATE VIEW v_secret_leases AS
SELECT id, node, secret_name, server, principal_id, child_id, inject,
       to_char(to_timestamp(granted_at / 1000) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS') || '.' || lpad(CAST(granted_at % 1000 AS TEXT), 3, '0') || 'Z' AS granted_at,
       to_char(to_timestamp(ended_at / 1000) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS') || '.' || lpad(CAST(ended_at % 1000 AS TEXT), 3, '0') || 'Z' AS ended_at,
       end_reason, ledger_opened, ledger_closed
FROM secret_leases;
