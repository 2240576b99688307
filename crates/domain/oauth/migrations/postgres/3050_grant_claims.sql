-- What the `claims` parameter of the authorization asked for, as JSON: userinfo and later ID tokens answer by it.
ALTER TABLE oauth_grants ADD COLUMN claims TEXT;
