//! The routing table (RFC 4271 §3.2, §9; BIRD's master table).
