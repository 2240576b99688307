-- There are none to drop here: on SQLite the decisions never had any but their key.
SELECT 1;
