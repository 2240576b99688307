-- What hooks of coding agents told, once for each session, event and tool use; the payload is redacted.
CREATE TABLE hook_events (
    id          TEXT NOT NULL PRIMARY KEY,
    -- A digest of user, session, event and tool use, so that an event that is sent again is stored once.
    event_key   TEXT NOT NULL UNIQUE,
    user_id     TEXT NOT NULL,
    session_id  TEXT NOT NULL,
    event       TEXT NOT NULL,
    tool_use_id TEXT,
    tool_name   TEXT,
    plugin_id   TEXT,
    trace_id    TEXT NOT NULL,
    -- Text on both engines: JSON may hold what JSONB does not take.
    payload     TEXT NOT NULL,
    created_at  BIGINT NOT NULL
);

CREATE INDEX hook_events_session ON hook_events (session_id, created_at);
CREATE INDEX hook_events_at ON hook_events (created_at);
