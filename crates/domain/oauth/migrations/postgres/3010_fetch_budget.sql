-- How soon documents may be fetched again for strangers: from one host, and in all (`*`). Shared by all nodes.
CREATE TABLE oauth_fetch_budget (
    name    TEXT NOT NULL PRIMARY KEY,
    -- When the budget is whole again.
    full_at BIGINT NOT NULL
);
CREATE INDEX oauth_fetch_budget_full ON oauth_fetch_budget (full_at);
