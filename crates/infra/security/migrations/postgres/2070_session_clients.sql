-- Sessions of a client that end with it. Those of a grant are found by the grant.
CREATE INDEX user_sessions_client ON user_sessions (client_id) WHERE client_id IS NOT NULL AND revoked_at IS NULL;
