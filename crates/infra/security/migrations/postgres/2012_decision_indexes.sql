-- Decisions are found by their id, as the ledger's entries name it; what else is asked for, the ledger's own indexes answer.
DROP INDEX governance_decisions_session;
DROP INDEX governance_decisions_user;
DROP INDEX governance_decisions_decision;
DROP INDEX governance_decisions_trace;
DROP INDEX governance_decisions_created;
