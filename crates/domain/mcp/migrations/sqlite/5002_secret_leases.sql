-- Which child was given which secret, from before its start until its end (SCR-34). Names only, never a value.
CREATE TABLE secret_leases (
    id            TEXT NOT NULL PRIMARY KEY,
    node          TEXT NOT NULL,
    secret_name   TEXT NOT NULL,
    server        TEXT NOT NULL,
    principal_id  TEXT,
    child_id      TEXT NOT NULL,
    inject        TEXT NOT NULL,
    granted_at    INTEGER NOT NULL,
    ended_at      INTEGER,
    end_reason    TEXT,
    ledger_opened TEXT NOT NULL,
    ledger_closed TEXT
) STRICT;

CREATE INDEX secret_leases_open ON secret_leases (id) WHERE ledger_closed IS NULL;

CREATE VIEW v_secret_leases AS
SELECT id, node, secret_name, server, principal_id, child_id, inject,
       CASE WHEN granted_at IS NULL THEN NULL ELSE strftime('%Y-%m-%dT%H:%M:%S', granted_at / 1000, 'unixepoch') || '.' || printf('%03d', granted_at % 1000) || 'Z' END AS granted_at,
       CASE WHEN ended_at IS NULL THEN NULL ELSE strftime('%Y-%m-%dT%H:%M:%S', ended_at / 1000, 'unixepoch') || '.' || printf('%03d', ended_at % 1000) || 'Z' END AS ended_at,
       end_reason, ledger_opened, ledger_closed
FROM secret_leases;
