-- Charges come in order of time and are swept by it: a summary of each part of the table says enough.
DROP INDEX governance_charges_at;
CREATE INDEX governance_charges_at ON governance_charges USING BRIN (charged_at) WITH (pages_per_range = 32);

-- Room for the next counts of a row beside it, so that no index has to follow.
ALTER TABLE governance_rate SET (fillfactor = 50);
