-- The authorization server. Every `*_digest` is 32 bytes in hex: HMAC-SHA-256 under a key of its own purpose. Lists are
-- space-separated unless a comment says JSON.

ALTER TABLE users ADD COLUMN kind TEXT NOT NULL DEFAULT 'person';
ALTER TABLE users ADD COLUMN email_verified BIGINT NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN locale TEXT;
-- 64 random bytes in base64url, by which an authenticator knows the user.
ALTER TABLE users ADD COLUMN webauthn_handle TEXT;
CREATE UNIQUE INDEX users_webauthn_handle ON users (webauthn_handle);

ALTER TABLE user_api_keys ADD COLUMN audiences TEXT;
ALTER TABLE user_api_keys ADD COLUMN allowed_cidrs TEXT;
ALTER TABLE user_api_keys ADD COLUMN pepper_id TEXT;

CREATE TABLE user_passwords (
    user_id    TEXT NOT NULL PRIMARY KEY REFERENCES users (id),
    -- PHC string.
    hash       TEXT NOT NULL,
    changed_at BIGINT NOT NULL
);

CREATE TABLE user_recovery_codes (
    code_digest TEXT NOT NULL PRIMARY KEY,
    user_id     TEXT NOT NULL REFERENCES users (id),
    created_at  BIGINT NOT NULL,
    used_at     BIGINT
);
CREATE INDEX user_recovery_codes_user ON user_recovery_codes (user_id);

CREATE TABLE federated_identities (
    issuer     TEXT NOT NULL,
    subject    TEXT NOT NULL,
    user_id    TEXT NOT NULL REFERENCES users (id),
    created_at BIGINT NOT NULL,
    PRIMARY KEY (issuer, subject)
);
CREATE INDEX federated_identities_user ON federated_identities (user_id);

CREATE TABLE oauth_clients (
    client_id                    TEXT NOT NULL PRIMARY KEY,
    name                         TEXT NOT NULL,
    kind                         TEXT NOT NULL,
    auth_method                  TEXT NOT NULL,
    application_type             TEXT NOT NULL,
    first_party                  BIGINT NOT NULL DEFAULT 0,
    status                       TEXT NOT NULL,
    -- The user of kind `client` that its own tokens stand for.
    user_id                      TEXT NOT NULL,
    owner_user_id                TEXT REFERENCES users (id),
    plugin_id                    TEXT,
    allowed_audiences            TEXT NOT NULL DEFAULT '',
    jwks                         TEXT,
    jwks_uri                     TEXT,
    client_uri                   TEXT,
    logo_uri                     TEXT,
    policy_uri                   TEXT,
    tos_uri                      TEXT,
    software_id                  TEXT,
    software_version             TEXT,
    id_token_signed_response_alg TEXT NOT NULL DEFAULT 'RS256',
    require_dpop                 BIGINT NOT NULL DEFAULT 0,
    -- The management token of a registered client, and the one before it with the end of its last minute.
    registration_digest          TEXT,
    registration_digest_old      TEXT,
    registration_old_until       BIGINT,
    -- Of what a person is shown of the client; a consent holds for one.
    metadata_digest              TEXT NOT NULL,
    pepper_id                    TEXT,
    created_at                   BIGINT NOT NULL,
    updated_at                   BIGINT NOT NULL,
    last_used_at                 BIGINT,
    version                      BIGINT NOT NULL
);
CREATE INDEX oauth_clients_owner ON oauth_clients (owner_user_id);
CREATE INDEX oauth_clients_unused ON oauth_clients (kind, last_used_at);

CREATE TABLE oauth_client_redirect_uris (
    client_id TEXT NOT NULL REFERENCES oauth_clients (client_id) ON DELETE CASCADE,
    -- `login` or `post_logout`.
    kind      TEXT NOT NULL,
    value     TEXT NOT NULL,
    PRIMARY KEY (client_id, kind, value)
);
CREATE TABLE oauth_client_grant_types (
    client_id TEXT NOT NULL REFERENCES oauth_clients (client_id) ON DELETE CASCADE,
    value     TEXT NOT NULL,
    PRIMARY KEY (client_id, value)
);
CREATE TABLE oauth_client_response_types (
    client_id TEXT NOT NULL REFERENCES oauth_clients (client_id) ON DELETE CASCADE,
    value     TEXT NOT NULL,
    PRIMARY KEY (client_id, value)
);
CREATE TABLE oauth_client_scopes (
    client_id TEXT NOT NULL REFERENCES oauth_clients (client_id) ON DELETE CASCADE,
    value     TEXT NOT NULL,
    PRIMARY KEY (client_id, value)
);
CREATE TABLE oauth_client_contacts (
    client_id TEXT NOT NULL REFERENCES oauth_clients (client_id) ON DELETE CASCADE,
    value     TEXT NOT NULL,
    PRIMARY KEY (client_id, value)
);

CREATE TABLE oauth_client_secrets (
    client_id     TEXT NOT NULL REFERENCES oauth_clients (client_id) ON DELETE CASCADE,
    secret_digest TEXT NOT NULL,
    pepper_id     TEXT NOT NULL,
    created_at    BIGINT NOT NULL,
    expires_at    BIGINT,
    PRIMARY KEY (client_id, secret_digest)
);

CREATE TABLE oauth_cimd_documents (
    url             TEXT NOT NULL PRIMARY KEY,
    -- JSON.
    document        TEXT NOT NULL,
    metadata_digest TEXT NOT NULL,
    fetched_at      BIGINT NOT NULL,
    fresh_until     BIGINT NOT NULL,
    logo            BYTEA,
    logo_type       TEXT,
    last_used_at    BIGINT NOT NULL
);
CREATE INDEX oauth_cimd_documents_used ON oauth_cimd_documents (last_used_at);

-- One act of authorising a client: the family of codes, refresh tokens and access tokens.
CREATE TABLE oauth_grants (
    grant_id          TEXT NOT NULL PRIMARY KEY,
    user_id           TEXT NOT NULL,
    client_id         TEXT NOT NULL,
    -- The browser session it was given in; without `offline` it ends with that.
    session_id        TEXT,
    kind              TEXT NOT NULL,
    scopes            TEXT NOT NULL,
    resources         TEXT NOT NULL,
    offline           BIGINT NOT NULL,
    created_at        BIGINT NOT NULL,
    family_expires_at BIGINT NOT NULL,
    last_used_at      BIGINT,
    revoked_at        BIGINT,
    revoked_reason    TEXT
);
CREATE INDEX oauth_grants_user ON oauth_grants (user_id, client_id);
CREATE INDEX oauth_grants_client ON oauth_grants (client_id);
CREATE INDEX oauth_grants_session ON oauth_grants (session_id) WHERE session_id IS NOT NULL;
CREATE INDEX oauth_grants_end ON oauth_grants (family_expires_at);

CREATE TABLE oauth_auth_codes (
    code_digest        TEXT NOT NULL PRIMARY KEY,
    client_id          TEXT NOT NULL,
    user_id            TEXT NOT NULL,
    session_id         TEXT NOT NULL,
    grant_id           TEXT NOT NULL,
    redirect_uri       TEXT NOT NULL,
    redirect_uri_given BIGINT NOT NULL,
    code_challenge     TEXT NOT NULL,
    scopes             TEXT NOT NULL,
    resources          TEXT NOT NULL,
    nonce              TEXT,
    -- The `claims` parameter, JSON.
    claims             TEXT,
    auth_time          BIGINT NOT NULL,
    acr                TEXT,
    amr                TEXT,
    dpop_jkt           TEXT,
    pepper_id          TEXT NOT NULL,
    created_at         BIGINT NOT NULL,
    expires_at         BIGINT NOT NULL,
    used_at            BIGINT
);
CREATE INDEX oauth_auth_codes_end ON oauth_auth_codes (expires_at);

CREATE TABLE oauth_refresh_tokens (
    token_digest  TEXT NOT NULL PRIMARY KEY,
    grant_id      TEXT NOT NULL,
    parent_digest TEXT,
    child_id      TEXT,
    child_digest  TEXT,
    client_id     TEXT NOT NULL,
    user_id       TEXT NOT NULL,
    scopes        TEXT NOT NULL,
    resources     TEXT NOT NULL,
    issued_at     BIGINT NOT NULL,
    expires_at    BIGINT NOT NULL,
    used_at       BIGINT,
    revoked_at    BIGINT,
    -- The access token that was given out with it.
    access_jti    TEXT,
    access_exp    BIGINT,
    pepper_id     TEXT NOT NULL
);
CREATE INDEX oauth_refresh_tokens_grant ON oauth_refresh_tokens (grant_id);
CREATE INDEX oauth_refresh_tokens_end ON oauth_refresh_tokens (expires_at);

CREATE TABLE oauth_consents (
    user_id         TEXT NOT NULL,
    client_id       TEXT NOT NULL,
    redirect_uri    TEXT NOT NULL,
    scopes          TEXT NOT NULL,
    resources       TEXT NOT NULL,
    metadata_digest TEXT NOT NULL,
    granted_at      BIGINT NOT NULL,
    last_used_at    BIGINT NOT NULL,
    revoked_at      BIGINT,
    PRIMARY KEY (user_id, client_id, redirect_uri)
);
CREATE INDEX oauth_consents_client ON oauth_consents (client_id);

CREATE TABLE oauth_authorize_requests (
    request_digest TEXT NOT NULL PRIMARY KEY,
    client_id      TEXT NOT NULL,
    -- The checked parameters, JSON.
    parameters     TEXT NOT NULL,
    flow_digest    TEXT NOT NULL,
    -- What the browser has done so far, JSON.
    state          TEXT NOT NULL,
    pepper_id      TEXT NOT NULL,
    created_at     BIGINT NOT NULL,
    expires_at     BIGINT NOT NULL
);
CREATE INDEX oauth_authorize_requests_flow ON oauth_authorize_requests (flow_digest);
CREATE INDEX oauth_authorize_requests_end ON oauth_authorize_requests (expires_at);

CREATE TABLE oauth_par_requests (
    request_digest TEXT NOT NULL PRIMARY KEY,
    client_id      TEXT NOT NULL,
    parameters     TEXT NOT NULL,
    pepper_id      TEXT NOT NULL,
    created_at     BIGINT NOT NULL,
    expires_at     BIGINT NOT NULL
);
CREATE INDEX oauth_par_requests_end ON oauth_par_requests (expires_at);

CREATE TABLE oauth_device_codes (
    device_digest    TEXT NOT NULL PRIMARY KEY,
    user_code_digest TEXT NOT NULL UNIQUE,
    client_id        TEXT NOT NULL,
    scopes           TEXT NOT NULL,
    resources        TEXT NOT NULL,
    -- `pending`, `approved`, `denied` or `used`.
    status           TEXT NOT NULL,
    -- Milliseconds between two questions, and when the next may come.
    poll_interval    BIGINT NOT NULL,
    next_poll_at     BIGINT NOT NULL,
    ip_prefix        TEXT,
    user_id          TEXT,
    session_id       TEXT,
    grant_id         TEXT,
    auth_time        BIGINT,
    acr              TEXT,
    amr              TEXT,
    pepper_id        TEXT NOT NULL,
    created_at       BIGINT NOT NULL,
    expires_at       BIGINT NOT NULL
);
CREATE INDEX oauth_device_codes_open ON oauth_device_codes (client_id, ip_prefix, expires_at);
CREATE INDEX oauth_device_codes_end ON oauth_device_codes (expires_at);

-- Client assertions and other one-use tokens of others: (issuer, jti).
CREATE TABLE oauth_assertion_jtis (
    issuer     TEXT NOT NULL,
    jti        TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (issuer, jti)
);
CREATE INDEX oauth_assertion_jtis_end ON oauth_assertion_jtis (expires_at);

CREATE TABLE setup_tokens (
    token_digest TEXT NOT NULL PRIMARY KEY,
    -- `bootstrap`, `invite`, `credential_link` or `recovery`.
    purpose      TEXT NOT NULL,
    user_id      TEXT,
    email        TEXT,
    roles        TEXT NOT NULL,
    issued_by    TEXT NOT NULL,
    pepper_id    TEXT NOT NULL,
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL,
    used_at      BIGINT
);
CREATE INDEX setup_tokens_end ON setup_tokens (expires_at);

CREATE TABLE webauthn_credentials (
    -- base64url.
    credential_id   TEXT NOT NULL PRIMARY KEY,
    user_id         TEXT NOT NULL REFERENCES users (id),
    -- The library's record of the credential, JSON.
    passkey         TEXT NOT NULL,
    counter         BIGINT NOT NULL,
    backup_eligible BIGINT NOT NULL,
    backup_state    BIGINT NOT NULL,
    aaguid          TEXT,
    transports      TEXT NOT NULL,
    name            TEXT NOT NULL,
    -- `active` or `suspect`.
    status          TEXT NOT NULL,
    created_at      BIGINT NOT NULL,
    last_used_at    BIGINT
);
CREATE INDEX webauthn_credentials_user ON webauthn_credentials (user_id);

CREATE TABLE webauthn_challenges (
    challenge_id TEXT NOT NULL PRIMARY KEY,
    -- `register`, `auth` or `link`.
    kind         TEXT NOT NULL,
    -- The library's state of the ceremony with what it is about, JSON.
    state        TEXT NOT NULL,
    user_id      TEXT,
    flow_digest  TEXT NOT NULL,
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL
);
CREATE INDEX webauthn_challenges_end ON webauthn_challenges (expires_at);

CREATE TABLE auth_attempts (
    key_digest    TEXT NOT NULL,
    window_start  BIGINT NOT NULL,
    failures      BIGINT NOT NULL,
    blocked_until BIGINT NOT NULL,
    PRIMARY KEY (key_digest, window_start)
);
CREATE INDEX auth_attempts_start ON auth_attempts (window_start);

CREATE TABLE bridge_exchange_codes (
    code_digest TEXT NOT NULL PRIMARY KEY,
    user_id     TEXT NOT NULL REFERENCES users (id),
    issued_by   TEXT NOT NULL,
    pepper_id   TEXT NOT NULL,
    created_at  BIGINT NOT NULL,
    expires_at  BIGINT NOT NULL
);
CREATE INDEX bridge_exchange_codes_user ON bridge_exchange_codes (user_id);
CREATE INDEX bridge_exchange_codes_end ON bridge_exchange_codes (expires_at);

CREATE TABLE bridge_sessions (
    session_id       TEXT NOT NULL PRIMARY KEY,
    user_id          TEXT NOT NULL,
    bridge_version   TEXT NOT NULL,
    os               TEXT NOT NULL,
    hostname         TEXT NOT NULL,
    forwarded_total  BIGINT NOT NULL,
    tokens_in_total  BIGINT NOT NULL,
    tokens_out_total BIGINT NOT NULL,
    last_activity_at BIGINT,
    last_seen_at     BIGINT NOT NULL
);
CREATE INDEX bridge_sessions_user ON bridge_sessions (user_id);

CREATE TABLE bridge_host_prefs (
    user_id TEXT NOT NULL REFERENCES users (id),
    host    TEXT NOT NULL,
    enabled BIGINT NOT NULL,
    PRIMARY KEY (user_id, host)
);
