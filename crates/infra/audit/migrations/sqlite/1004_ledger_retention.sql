-- A stub is an entry whose record and index columns are null. `pruned_by` is the id of the `system.retention` record that covers it.
ALTER TABLE ledger_entries ADD COLUMN pruned_by TEXT;

-- One row: who applies the retention, until when, and what the last run did (`result` and `progress` are JSON texts). The node
-- that holds it renews it; `epoch` tells one holding from the next.
CREATE TABLE ledger_retention (
    one         INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    holder      TEXT,
    epoch       INTEGER NOT NULL,
    held_until  INTEGER NOT NULL,
    started_at  INTEGER,
    finished_at INTEGER,
    pending     TEXT,
    progress    TEXT,
    result      TEXT
) STRICT;
INSERT INTO ledger_retention (one, epoch, held_until) VALUES (1, 0, 0);
