-- What a sign-in leaves behind, and which session a session came from: when the parent ends, so does its child.
ALTER TABLE user_sessions ADD COLUMN ends_at BIGINT;
ALTER TABLE user_sessions ADD COLUMN auth_time BIGINT;
ALTER TABLE user_sessions ADD COLUMN acr TEXT;
-- Space-separated (RFC 8176).
ALTER TABLE user_sessions ADD COLUMN amr TEXT;
ALTER TABLE user_sessions ADD COLUMN ip_prefix TEXT;
ALTER TABLE user_sessions ADD COLUMN user_agent TEXT;
ALTER TABLE user_sessions ADD COLUMN client_id TEXT;
ALTER TABLE user_sessions ADD COLUMN owner_id TEXT;
ALTER TABLE user_sessions ADD COLUMN grant_id TEXT;
ALTER TABLE user_sessions ADD COLUMN parent_session_id TEXT;
CREATE INDEX user_sessions_parent ON user_sessions (parent_session_id) WHERE parent_session_id IS NOT NULL;
CREATE INDEX user_sessions_grant ON user_sessions (grant_id) WHERE grant_id IS NOT NULL;
CREATE INDEX user_sessions_owner ON user_sessions (owner_id) WHERE owner_id IS NOT NULL;
CREATE INDEX user_sessions_end ON user_sessions (expires_at);
