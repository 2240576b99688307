//! Messages of dynamic registration (RFC 7591, RFC 7592).
