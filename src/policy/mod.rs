//! Import, export and kernel policy.
//!
//! Owns: programs ([`program`]), the sets that they name ([`sets`]), and their evaluation ([`eval`]). Never: knows the
//! resources that a program comes from; those are compiled in `desired`. Core: no clocks, no I/O.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod eval;
pub mod glob;
pub mod prefix_set;
pub mod program;
pub mod sets;
pub mod words;
