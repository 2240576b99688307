-- What ends with a client is found by it.
CREATE INDEX oauth_auth_codes_client ON oauth_auth_codes (client_id);
CREATE INDEX oauth_authorize_requests_client ON oauth_authorize_requests (client_id);
