//! Security: who is calling (extraction, tokens, keys, sessions), what they may do (rules, the decision plane), what is in the
//! payload (governance), and what may leave (redaction). It decides; routing and rendering live elsewhere.

pub mod authz;
