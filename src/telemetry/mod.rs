//! What the daemon tells about itself without being asked.
//!
//! Owns: the log ([`log`]). Never: answers questions; that is [`control`](crate::control).
pub mod log;
