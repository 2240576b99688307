//! A2A: agent cards, contexts, tasks, artifacts and the agent runtime live here. The room is empty: nothing of it is routed,
//! stored or advertised.
