-- One row a model call: opened in the unit that permits the call, closed in the one that settles it.
CREATE TABLE ai_requests (
    id                    TEXT    NOT NULL PRIMARY KEY,
    ledger_opened         TEXT    NOT NULL,
    ledger_closed         TEXT,
    ledger_stream         TEXT    NOT NULL,
    user_id               TEXT    NOT NULL,
    client_id             TEXT,
    api_key_id            TEXT,
    session_id            TEXT,
    conversation_id       TEXT    NOT NULL,
    context_id            TEXT,
    task_id               TEXT,
    trace_id              TEXT    NOT NULL,
    agent_id              TEXT,
    parent_agent_id       TEXT,
    act_chain             JSONB,
    operation             TEXT    NOT NULL,
    protocol_in           TEXT    NOT NULL,
    protocol_out          TEXT    NOT NULL,
    route                 TEXT    NOT NULL,
    provider              TEXT    NOT NULL,
    model_requested       TEXT    NOT NULL,
    model_upstream        TEXT    NOT NULL,
    stream                BIGINT  NOT NULL,
    max_tokens            BIGINT,
    decision_id           TEXT    NOT NULL,
    client_body_sha256    TEXT    NOT NULL,
    forwarded_body_sha256 TEXT    NOT NULL,
    body_salt             TEXT    NOT NULL,
    body_bytes            BIGINT  NOT NULL,
    edits                 JSONB   NOT NULL,
    client_info           JSONB   NOT NULL,
    opened_at             BIGINT  NOT NULL,
    model_response        TEXT,
    status                BIGINT,
    outcome               TEXT,
    error_type            TEXT,
    response_sha256       TEXT,
    response_bytes        BIGINT,
    input_tokens          BIGINT,
    output_tokens         BIGINT,
    cache_read_tokens     BIGINT,
    cache_write_5m_tokens BIGINT,
    cache_write_1h_tokens BIGINT,
    cost_micro            BIGINT,
    price_id              TEXT,
    price_source          TEXT,
    usage_source          TEXT,
    stop_reason           TEXT,
    provider_request_id   TEXT,
    tool_calls            BIGINT,
    injected_pings        BIGINT,
    ttft_ms               BIGINT,
    upstream_ms           BIGINT,
    total_ms              BIGINT,
    sent_at               BIGINT,
    closed_at             BIGINT
);

CREATE UNIQUE INDEX ai_requests_opened ON ai_requests (ledger_opened);
CREATE INDEX ai_requests_open ON ai_requests (id) WHERE ledger_closed IS NULL;
CREATE INDEX ai_requests_trace ON ai_requests (trace_id);
CREATE INDEX ai_requests_user ON ai_requests (user_id, id);
CREATE INDEX ai_requests_session ON ai_requests (session_id, id);
CREATE INDEX ai_requests_context ON ai_requests (context_id, id);

CREATE VIEW v_ai_requests AS
SELECT id, ledger_opened, ledger_closed, ledger_stream, user_id, client_id, api_key_id, session_id, conversation_id,
       context_id, task_id, trace_id, agent_id, parent_agent_id, act_chain, operation, protocol_in, protocol_out,
       route, provider, model_requested, model_upstream, stream, max_tokens, decision_id, client_body_sha256,
       forwarded_body_sha256, body_bytes, edits, client_info,
       to_char(to_timestamp(opened_at / 1000) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS') || '.'
           || lpad(CAST(opened_at % 1000 AS TEXT), 3, '0') || 'Z' AS opened_at,
       model_response, status, outcome, error_type, response_sha256, response_bytes, input_tokens, output_tokens,
       cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, cost_micro, price_id, price_source,
       usage_source, stop_reason, provider_request_id, tool_calls, injected_pings, ttft_ms, upstream_ms, total_ms,
       to_char(to_timestamp(sent_at / 1000) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS') || '.'
           || lpad(CAST(sent_at % 1000 AS TEXT), 3, '0') || 'Z' AS sent_at,
       to_char(to_timestamp(closed_at / 1000) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS') || '.'
           || lpad(CAST(closed_at % 1000 AS TEXT), 3, '0') || 'Z' AS closed_at
FROM ai_requests;
