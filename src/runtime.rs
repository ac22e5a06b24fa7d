//! The async runtime: how many threads.
//!
//! Owns: the choice. A node's daemon does not grow with the machine that it runs on. Never: runs the table, which has a
//! thread of its own beside these.

use std::io;
use std::num::NonZero;

use tokio::runtime::{Builder, Runtime};

/// Worker threads for so many processors granted.
pub const fn workers(processors: usize) -> usize {
    if processors <= 2 {
        1
    } else {
        let more = processors / 8 + 1;
        if more < 4 { more } else { 4 }
    }
}

/// The runtime with this many workers, or as many as suit the processors that are granted (cgroups are heeded).
pub fn build(chosen: Option<usize>) -> io::Result<Runtime> {
    let granted = std::thread::available_parallelism().map_or(1, NonZero::get);
    Builder::new_multi_thread()
        .worker_threads(chosen.unwrap_or_else(|| workers(granted)))
        .thread_name("worker")
        .enable_all()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_hardly_grow_with_the_machine() {
        let counts = [1, 2, 3, 8, 16, 24, 64, 256].map(workers);
        assert_eq!(counts, [1, 1, 1, 2, 3, 4, 4, 4]);
    }
}
