//! Numbers for policy programs.
//!
//! Owns: one [`ProgramId`] for each program in use, so that programs are compared once and not for each peer. Never: runs
//! one.

use std::sync::Arc;

use bgp_proto::rib::ProgramId;

use crate::policy::program::Program;

/// The programs in use.
#[derive(Debug, Default)]
pub(super) struct Programs {
    known: Vec<(Arc<Program>, ProgramId)>,
    next: u32,
}

impl Programs {
    /// The number of a program: equal programs have equal numbers.
    pub fn id(&mut self, program: &Arc<Program>) -> ProgramId {
        let same = self.known.iter().find(|(known, _)| Arc::ptr_eq(known, program));
        let equal = || self.known.iter().find(|(known, _)| known == program);
        if let Some((_, id)) = same.or_else(equal) {
            return *id;
        }
        let id = ProgramId(self.next);
        self.next = self.next.wrapping_add(1);
        self.known.push((program.clone(), id));
        id
    }

    /// Forgets programs that no peer has.
    pub fn retain(&mut self, used: impl Fn(ProgramId) -> bool) {
        self.known.retain(|(_, id)| used(*id));
    }
}
