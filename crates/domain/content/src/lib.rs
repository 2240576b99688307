//! Content: site content, short links, files, the marketplace and sync archives live here. The room is empty: nothing of it is
//! routed, stored or advertised.
