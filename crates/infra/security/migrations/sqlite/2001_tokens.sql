-- What every token is verified against: keys, sessions, revocations.

CREATE TABLE signing_keys (
    kid TEXT PRIMARY KEY,
    alg TEXT NOT NULL CHECK (alg IN ('RS256', 'ES256', 'EdDSA')),
    use TEXT NOT NULL CHECK (use = 'sig'),
    state TEXT NOT NULL CHECK (state IN ('next', 'active', 'retired', 'removed', 'revoked')),
    public_jwk TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    activated_at INTEGER,
    retired_at INTEGER,
    verify_until INTEGER,
    ledger_opened TEXT NOT NULL
) STRICT;

CREATE UNIQUE INDEX signing_keys_active ON signing_keys (alg) WHERE state = 'active';

CREATE TABLE user_sessions (
    id TEXT PRIMARY KEY,
    user_id TEXT,
    source TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    last_seen_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    revoked_at INTEGER,
    revoked_reason TEXT
) STRICT;

CREATE INDEX user_sessions_user ON user_sessions (user_id, created_at);
CREATE INDEX user_sessions_revoked ON user_sessions (revoked_at) WHERE revoked_at IS NOT NULL;

CREATE TABLE oauth_jti_revocations (
    jti TEXT PRIMARY KEY,
    expires_at INTEGER NOT NULL,
    revoked_at INTEGER NOT NULL
) STRICT;

CREATE INDEX oauth_jti_revocations_at ON oauth_jti_revocations (revoked_at);
