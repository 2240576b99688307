-- One row per tool call (MCP-68): opened with its tool.opened entry before the tool runs, closed with its tool.closed entry
-- before the answer leaves. Digests are keyed; no column holds an argument, a result or a secret.
CREATE TABLE mcp_tool_executions (
    mcp_execution_id   TEXT NOT NULL PRIMARY KEY,
    tool_name          TEXT NOT NULL,
    server_name        TEXT NOT NULL,
    server_instance_id TEXT NOT NULL,
    method             TEXT NOT NULL,
    source             TEXT NOT NULL,
    user_id            TEXT NOT NULL,
    actor_kind         TEXT NOT NULL,
    actor_id           TEXT NOT NULL,
    act_chain          TEXT,
    client_id          TEXT,
    session_id         TEXT,
    context_id         TEXT,
    task_id            TEXT,
    trace_id           TEXT NOT NULL,
    ai_tool_call_id    TEXT,
    era_client         TEXT NOT NULL,
    era_upstream       TEXT NOT NULL,
    decision_id        TEXT NOT NULL,
    lease_ids          TEXT,
    node               TEXT NOT NULL,
    input_digest       TEXT NOT NULL,
    input_bytes        INTEGER NOT NULL,
    output_digest      TEXT,
    output_bytes       INTEGER,
    is_error           INTEGER,
    status             TEXT NOT NULL,
    error_kind         TEXT,
    error_message      TEXT,
    started_at         INTEGER NOT NULL,
    completed_at       INTEGER,
    execution_time_ms  INTEGER,
    ledger_opened      TEXT NOT NULL,
    ledger_closed      TEXT
) STRICT;

-- Holds only what runs at present; its key grows with time.
CREATE INDEX mcp_tool_executions_open ON mcp_tool_executions (mcp_execution_id) WHERE ledger_closed IS NULL;

-- A tool use of a model turn runs once: the second claim of the same principal fails (MCP-70).
CREATE TABLE mcp_tool_use_claims (
    user_id          TEXT    NOT NULL,
    ai_tool_call_id  TEXT    NOT NULL,
    mcp_execution_id TEXT    NOT NULL,
    claimed_at       INTEGER NOT NULL,
    PRIMARY KEY (user_id, ai_tool_call_id)
) STRICT;

CREATE VIEW v_mcp_tool_executions AS
SELECT mcp_execution_id, tool_name, server_name, server_instance_id, method, source, user_id, actor_kind, actor_id,
       client_id, session_id, context_id, task_id, trace_id, ai_tool_call_id, decision_id, node, status, error_kind,
       error_message, is_error, input_bytes, output_bytes,
       CASE WHEN started_at IS NULL THEN NULL ELSE strftime('%Y-%m-%dT%H:%M:%S', started_at / 1000, 'unixepoch') || '.' || printf('%03d', started_at % 1000) || 'Z' END AS started_at,
       CASE WHEN completed_at IS NULL THEN NULL ELSE strftime('%Y-%m-%dT%H:%M:%S', completed_at / 1000, 'unixepoch') || '.' || printf('%03d', completed_at % 1000) || 'Z' END AS completed_at,
       execution_time_ms, ledger_opened, ledger_closed
FROM mcp_tool_executions;
