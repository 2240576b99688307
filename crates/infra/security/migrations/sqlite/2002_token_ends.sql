-- What ends tokens before their time: single tokens, sessions, everything of a user or client, and keys. Each such change takes the
-- next number of one row in its own transaction, so that a node which knows the number knows whether its copy is old.

CREATE TABLE revocation_epoch (
    one INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    epoch INTEGER NOT NULL
) STRICT;
INSERT INTO revocation_epoch (one, epoch) VALUES (1, 0);

-- Tokens that were issued in or before the second of `not_before` are dead. `id` is `*` where `kind` is `all`.
CREATE TABLE token_cutoffs (
    kind TEXT NOT NULL CHECK (kind IN ('client', 'user', 'all')),
    id TEXT NOT NULL,
    not_before INTEGER NOT NULL,
    reason TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    ledger_opened TEXT NOT NULL,
    PRIMARY KEY (kind, id)
) STRICT;

ALTER TABLE user_sessions ADD COLUMN revoked_epoch INTEGER;
UPDATE user_sessions SET revoked_epoch = 0 WHERE revoked_at IS NOT NULL;
DROP INDEX user_sessions_revoked;
CREATE INDEX user_sessions_revoked ON user_sessions (revoked_epoch) WHERE revoked_epoch IS NOT NULL;

ALTER TABLE oauth_jti_revocations ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;
DROP INDEX oauth_jti_revocations_at;
CREATE INDEX oauth_jti_revocations_epoch ON oauth_jti_revocations (epoch);
CREATE INDEX oauth_jti_revocations_end ON oauth_jti_revocations (expires_at);

-- Keys of use `internal` sign what passes between this deployment and its tool children, and are never published.
CREATE TABLE signing_keys_new (
    kid TEXT PRIMARY KEY,
    alg TEXT NOT NULL CHECK (alg IN ('RS256', 'ES256', 'EdDSA')),
    use TEXT NOT NULL CHECK (use IN ('sig', 'internal')),
    state TEXT NOT NULL CHECK (state IN ('next', 'active', 'retired', 'removed', 'revoked')),
    public_jwk TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    activated_at INTEGER,
    retired_at INTEGER,
    verify_until INTEGER,
    ledger_opened TEXT NOT NULL
) STRICT;
INSERT INTO signing_keys_new
    (kid, alg, use, state, public_jwk, created_at, activated_at, retired_at, verify_until, ledger_opened)
    SELECT kid, alg, use, state, public_jwk, created_at, activated_at, retired_at, verify_until, ledger_opened
    FROM signing_keys;
DROP TABLE signing_keys;
ALTER TABLE signing_keys_new RENAME TO signing_keys;
CREATE UNIQUE INDEX signing_keys_active ON signing_keys (use, alg) WHERE state = 'active';
