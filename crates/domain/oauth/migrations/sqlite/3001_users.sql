CREATE TABLE users (
    id             TEXT NOT NULL PRIMARY KEY,
    username       TEXT NOT NULL,
    -- Lower-case copies: uniqueness ignores case, what people read does not.
    username_key   TEXT NOT NULL UNIQUE,
    email          TEXT,
    email_key      TEXT UNIQUE,
    display_name   TEXT,
    status         TEXT NOT NULL,
    department     TEXT,
    created_at     INTEGER NOT NULL,
    updated_at     INTEGER NOT NULL,
    version        INTEGER NOT NULL
) STRICT;

CREATE TABLE user_roles (
    user_id TEXT NOT NULL REFERENCES users (id),
    role    TEXT NOT NULL,
    PRIMARY KEY (user_id, role)
) STRICT;

CREATE TABLE user_api_keys (
    id           TEXT NOT NULL PRIMARY KEY,
    user_id      TEXT NOT NULL REFERENCES users (id),
    name         TEXT NOT NULL,
    -- First 12 and last 4 characters, which lists show.
    prefix       TEXT NOT NULL,
    suffix       TEXT NOT NULL,
    -- HMAC-SHA-256 under a key derived from the at-rest pepper.
    digest       TEXT NOT NULL UNIQUE,
    scopes       TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER,
    last_used_at INTEGER,
    revoked_at   INTEGER
) STRICT;
CREATE INDEX user_api_keys_user ON user_api_keys (user_id);
