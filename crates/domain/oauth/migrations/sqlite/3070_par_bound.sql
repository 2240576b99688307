-- How many requests of a client wait is asked with each new one.
CREATE INDEX oauth_par_requests_client ON oauth_par_requests (client_id, expires_at);
