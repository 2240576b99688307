-- What every token is verified against: keys, sessions, revocations.

CREATE TABLE signing_keys (
    kid TEXT PRIMARY KEY,
    alg TEXT NOT NULL CHECK (alg IN ('RS256', 'ES256', 'EdDSA')),
    use TEXT NOT NULL CHECK (use = 'sig'),
    state TEXT NOT NULL CHECK (state IN ('next', 'active', 'retired', 'removed', 'revoked')),
    public_jwk JSONB NOT NULL,
    created_at BIGINT NOT NULL,
    activated_at BIGINT,
    retired_at BIGINT,
    verify_until BIGINT,
    ledger_opened TEXT NOT NULL
);

CREATE UNIQUE INDEX signing_keys_active ON signing_keys (alg) WHERE state = 'active';

CREATE TABLE user_sessions (
    id TEXT PRIMARY KEY,
    user_id TEXT,
    source TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    last_seen_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    revoked_at BIGINT,
    revoked_reason TEXT
);

CREATE INDEX user_sessions_user ON user_sessions (user_id, created_at);
CREATE INDEX user_sessions_revoked ON user_sessions (revoked_at) WHERE revoked_at IS NOT NULL;

CREATE TABLE oauth_jti_revocations (
    jti TEXT PRIMARY KEY,
    expires_at BIGINT NOT NULL,
    revoked_at BIGINT NOT NULL
);

CREATE INDEX oauth_jti_revocations_at ON oauth_jti_revocations (revoked_at);
