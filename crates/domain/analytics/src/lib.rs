//! Analytics: events, sessions, engagement and reports live here. The room is empty: nothing of it is routed, stored or
//! advertised.
