CREATE TABLE access_control_entities (
    entity_type      TEXT    NOT NULL,
    entity_id        TEXT    NOT NULL,
    display_name     TEXT,
    default_included INTEGER NOT NULL,
    source           TEXT    NOT NULL,
    created_at       INTEGER NOT NULL,
    updated_at       INTEGER NOT NULL,
    PRIMARY KEY (entity_type, entity_id)
) STRICT;

CREATE TABLE access_control_rules (
    id            TEXT    NOT NULL PRIMARY KEY,
    entity_type   TEXT    NOT NULL,
    entity_id     TEXT    NOT NULL,
    is_pattern    INTEGER NOT NULL,
    rule_type     TEXT    NOT NULL,
    rule_value    TEXT    NOT NULL,
    access        TEXT    NOT NULL,
    justification TEXT,
    source        TEXT    NOT NULL,
    created_by    TEXT    NOT NULL,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    version       INTEGER NOT NULL,
    UNIQUE (entity_type, entity_id, rule_type, rule_value)
) STRICT;

-- One row: the epoch rises with every change, so that each node knows when its copy is old.
CREATE TABLE authz_epoch (
    one   INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    epoch INTEGER NOT NULL
) STRICT;
INSERT INTO authz_epoch (one, epoch) VALUES (1, 0);

-- Written only in the ledger's units, and keyed by time alone; `lookup.db` finds rows by anything else.
CREATE TABLE governance_decisions (
    id              TEXT    NOT NULL PRIMARY KEY,
    call_id         TEXT    NOT NULL,
    origin          TEXT    NOT NULL,
    user_id         TEXT    NOT NULL,
    session_id      TEXT,
    actor_kind      TEXT    NOT NULL,
    actor_id        TEXT    NOT NULL,
    act_chain       TEXT,
    agent_id        TEXT,
    agent_scope     TEXT,
    entity_type     TEXT,
    entity_id       TEXT,
    tool_name       TEXT,
    plugin_id       TEXT,
    decision        TEXT    NOT NULL,
    policy          TEXT    NOT NULL,
    reason          TEXT    NOT NULL,
    source          TEXT    NOT NULL,
    evaluated_rules TEXT    NOT NULL,
    findings        TEXT    NOT NULL,
    args_sha256     TEXT,
    rule_epoch      INTEGER NOT NULL,
    context_id      TEXT,
    task_id         TEXT,
    trace_id        TEXT,
    args_payload    TEXT,
    ledger_opened   TEXT    NOT NULL,
    ledger_closed   TEXT,
    created_at      INTEGER NOT NULL
) STRICT;

CREATE VIEW v_governance_decisions AS
SELECT id, call_id, origin, user_id, session_id, actor_kind, actor_id, act_chain, agent_id, agent_scope, entity_type,
       entity_id, tool_name, plugin_id, decision, policy, reason, source, evaluated_rules, findings, args_sha256,
       rule_epoch, context_id, task_id, trace_id, args_payload, ledger_opened, ledger_closed,
       strftime('%Y-%m-%dT%H:%M:%S', created_at / 1000, 'unixepoch') || '.' || printf('%03d', created_at % 1000) || 'Z'
           AS created_at
FROM governance_decisions;
