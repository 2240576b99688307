-- Creations of users that may come twice (`Idempotency-Key`): whoever asks again with the same key gets the user of the first time.
CREATE TABLE user_requests (
    owner_id   TEXT NOT NULL,
    key        TEXT NOT NULL,
    -- Of what was asked for, SHA-256 in hex.
    digest     TEXT NOT NULL,
    user_id    TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (owner_id, key)
);
CREATE INDEX user_requests_end ON user_requests (expires_at);

-- What happened to an account, for its person to see from their other sessions.
CREATE TABLE user_notices (
    id         TEXT NOT NULL PRIMARY KEY,
    user_id    TEXT NOT NULL REFERENCES users (id),
    kind       TEXT NOT NULL,
    -- What it is about: the name of a passkey, or nothing.
    about      TEXT,
    -- The session that did it, which need not be told; nothing where nobody was signed in.
    session_id TEXT,
    ip_prefix  TEXT,
    created_at BIGINT NOT NULL
);
CREATE INDEX user_notices_user ON user_notices (user_id, id);
CREATE INDEX user_notices_end ON user_notices (created_at);
