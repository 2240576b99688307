CREATE TABLE access_control_entities (
    entity_type      TEXT   NOT NULL,
    entity_id        TEXT   NOT NULL,
    display_name     TEXT,
    default_included BIGINT NOT NULL,
    source           TEXT   NOT NULL,
    created_at       BIGINT NOT NULL,
    updated_at       BIGINT NOT NULL,
    PRIMARY KEY (entity_type, entity_id)
);

CREATE TABLE access_control_rules (
    id            TEXT   NOT NULL PRIMARY KEY,
    entity_type   TEXT   NOT NULL,
    entity_id     TEXT   NOT NULL,
    is_pattern    BIGINT NOT NULL,
    rule_type     TEXT   NOT NULL,
    rule_value    TEXT   NOT NULL,
    access        TEXT   NOT NULL,
    justification TEXT,
    source        TEXT   NOT NULL,
    created_by    TEXT   NOT NULL,
    created_at    BIGINT NOT NULL,
    updated_at    BIGINT NOT NULL,
    version       BIGINT NOT NULL,
    UNIQUE (entity_type, entity_id, rule_type, rule_value)
);

-- One row: the epoch rises with every change, so that each node knows when its copy is old.
CREATE TABLE authz_epoch (
    one   BIGINT NOT NULL PRIMARY KEY CHECK (one = 1),
    epoch BIGINT NOT NULL
);
INSERT INTO authz_epoch (one, epoch) VALUES (1, 0);

CREATE TABLE governance_decisions (
    id              TEXT   NOT NULL PRIMARY KEY,
    call_id         TEXT   NOT NULL,
    origin          TEXT   NOT NULL,
    user_id         TEXT   NOT NULL,
    session_id      TEXT,
    actor_kind      TEXT   NOT NULL,
    actor_id        TEXT   NOT NULL,
    act_chain       TEXT,
    agent_id        TEXT,
    agent_scope     TEXT,
    entity_type     TEXT,
    entity_id       TEXT,
    tool_name       TEXT,
    plugin_id       TEXT,
    decision        TEXT   NOT NULL,
    policy          TEXT   NOT NULL,
    reason          TEXT   NOT NULL,
    source          TEXT   NOT NULL,
    evaluated_rules JSONB  NOT NULL,
    findings        JSONB  NOT NULL,
    args_sha256     TEXT,
    rule_epoch      BIGINT NOT NULL,
    context_id      TEXT,
    task_id         TEXT,
    trace_id        TEXT,
    args_payload    TEXT,
    ledger_opened   TEXT   NOT NULL,
    ledger_closed   TEXT,
    created_at      BIGINT NOT NULL
);

CREATE INDEX governance_decisions_session ON governance_decisions (session_id);
CREATE INDEX governance_decisions_user ON governance_decisions (user_id);
CREATE INDEX governance_decisions_decision ON governance_decisions (decision, created_at);
CREATE INDEX governance_decisions_trace ON governance_decisions (trace_id);
CREATE INDEX governance_decisions_created ON governance_decisions (created_at);

CREATE VIEW v_governance_decisions AS
SELECT id, call_id, origin, user_id, session_id, actor_kind, actor_id, act_chain, agent_id, agent_scope, entity_type,
       entity_id, tool_name, plugin_id, decision, policy, reason, source, evaluated_rules, findings, args_sha256,
       rule_epoch, context_id, task_id, trace_id, args_payload, ledger_opened, ledger_closed,
       to_char(to_timestamp(created_at / 1000) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS') || '.'
           || lpad(CAST(created_at % 1000 AS TEXT), 3, '0') || 'Z' AS created_at
FROM governance_decisions;
