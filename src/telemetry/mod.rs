//! What the daemon tells about itself without being asked.
pub mod log;
