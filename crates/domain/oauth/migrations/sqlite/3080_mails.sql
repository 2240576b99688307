-- Whether an administrator wrote the mail of a user; of mails from before nobody knows.
ALTER TABLE users ADD COLUMN email_vouched INTEGER NOT NULL DEFAULT 0;
-- The mail of a client's user is nobody's address.
UPDATE users SET email = NULL, email_key = NULL WHERE kind = 'client';
