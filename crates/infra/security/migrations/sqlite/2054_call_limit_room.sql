-- The one node counts in memory; see 2050.
DROP INDEX governance_charges_at;
