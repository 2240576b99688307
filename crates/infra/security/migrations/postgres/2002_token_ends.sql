-- What ends tokens before their time: single tokens, sessions, everything of a user or client, and keys. Each such change takes the
-- next number of one row in its own transaction, so that a node which knows the number knows whether its copy is old.

CREATE TABLE revocation_epoch (
    one BIGINT NOT NULL PRIMARY KEY CHECK (one = 1),
    epoch BIGINT NOT NULL
);
INSERT INTO revocation_epoch (one, epoch) VALUES (1, 0);

-- Tokens that were issued in or before the second of `not_before` are dead. `id` is `*` where `kind` is `all`.
CREATE TABLE token_cutoffs (
    kind TEXT NOT NULL CHECK (kind IN ('client', 'user', 'all')),
    id TEXT NOT NULL,
    not_before BIGINT NOT NULL,
    reason TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    epoch BIGINT NOT NULL,
    ledger_opened TEXT NOT NULL,
    PRIMARY KEY (kind, id)
);

ALTER TABLE user_sessions ADD COLUMN revoked_epoch BIGINT;
UPDATE user_sessions SET revoked_epoch = 0 WHERE revoked_at IS NOT NULL;
DROP INDEX user_sessions_revoked;
CREATE INDEX user_sessions_revoked ON user_sessions (revoked_epoch) WHERE revoked_epoch IS NOT NULL;

ALTER TABLE oauth_jti_revocations ADD COLUMN epoch BIGINT NOT NULL DEFAULT 0;
DROP INDEX oauth_jti_revocations_at;
CREATE INDEX oauth_jti_revocations_epoch ON oauth_jti_revocations (epoch);
CREATE INDEX oauth_jti_revocations_end ON oauth_jti_revocations (expires_at);

-- Keys of use `internal` sign what passes between this deployment and its tool children, and are never published.
ALTER TABLE signing_keys DROP CONSTRAINT signing_keys_use_check;
ALTER TABLE signing_keys ADD CONSTRAINT signing_keys_use_check CHECK (use IN ('sig', 'internal'));
DROP INDEX signing_keys_active;
CREATE UNIQUE INDEX signing_keys_active ON signing_keys (use, alg) WHERE state = 'active';
