-- At most one unused token makes a first administrator, whoever printed it.
CREATE UNIQUE INDEX setup_tokens_bootstrap ON setup_tokens (purpose) WHERE purpose = 'bootstrap' AND used_at IS NULL;
