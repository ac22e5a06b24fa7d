//! Numbers that nobody can foresee: seeds of hashes, and what spreads timers over time.
//!
//! Owns: where they come from, which is the standard library: it seeds its hashers from the system. Never: serves for
//! keys; used by a core, which is given a seed.

use std::hash::{BuildHasher, RandomState};

/// Such a number.
pub fn random() -> u64 {
    RandomState::new().hash_one(0)
}
