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
    act_chain          JSONB,
    client_id          TEXT,
    session_id         TEXT,
    context_id         TEXT,
    task_id            TEXT,
    trace_id           TEXT NOT NULL,
    ai_tool_call_id    TEXT,
    era_client         TEXT NOT NULL,
    era_upstream       TEXT NOT NULL,
    decision_id        TEXT NOT NULL,
    lease_ids          JSONB,
    node               TEXT NOT NULL,
    input_digest       TEXT NOT NULL,
    input_bytes        BIGINT NOT NULL,
    output_digest      TEXT,
    output_bytes       BIGINT,
    is_error           BIGINT,
    status             TEXT NOT NULL,
    error_kind         TEXT,
    error_message      TEXT,
    started_at         BIGINT NOT NULL,
    completed_at       BIGINT,
    execution_time_ms  BIGINT,
    ledger_opened      TEXT NOT NULL,
    ledger_closed      TEXT
);

-- Holds only what runs at present; its key grows with time.
CREATE INDEX mcp_tool_executions_open ON mcp_tool_executions (mcp_execution_id) WHERE ledger_closed IS NULL;
CREATE INDEX mcp_tool_executions_user ON mcp_tool_executions (user_id, started_at);
CREATE INDEX mcp_tool_executions_server ON mcp_tool_executions (server_name, tool_name, started_at);
CREATE INDEX mcp_tool_executions_trace ON mcp_tool_executions (trace_id);
CREATE INDEX mcp_tool_executions_decision ON mcp_tool_executions (decision_id);

-- A tool use of a model turn runs once: the second claim of the same principal fails (MCP-70).
CREATE TABLE mcp_tool_use_claims (
    user_id          TEXT    NOT NULL,
    ai_tool_call_id  TEXT    NOT NULL,
    mcp_execution_id TEXT    NOT NULL,
    claimed_at       BIGINT NOT NULL,
    PRIMARY KEY (user_id, ai_tool_call_id)
);

CREATE VIEW v_mcp_tool_executions AS
SELECT mcp_execution_id, tool_name, server_name, server_instance_id, method, source, user_id, actor_kind, actor_id,
       client_id, session_id, context_id, task_id, trace_id, ai_tool_call_id, decision_id, node, status, error_kind,
       error_message, is_error, input_bytes, output_bytes,
       to_char(to_timestamp(started_at / 1000) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS') || '.' || lpad(CAST(started_at % 1000 AS TEXT), 3, '0') || 'Z' AS started_at,
       to_char(to_timestamp(completed_at / 1000) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS') || '.' || lpad(CAST(completed_at % 1000 AS TEXT), 3, '0') || 'Z' AS completed_at,
       execution_time_ms, ledger_opened, ledger_closed
FROM mcp_tool_executions;
