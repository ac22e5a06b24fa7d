//! Import, export and kernel policy: programs and their evaluation. Core: no clocks, no I/O.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod eval;
pub mod glob;
pub mod program;
