//! Random scripts against one session: it keeps its promises whatever the world does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod session_script;

use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn a_session_keeps_its_promises_under_any_script(script in prop::collection::vec(any::<u8>(), 0..800)) {
        session_script::run(&script);
    }

    /// The shortest way up first, so that most of the script meets an established session.
    #[test]
    fn an_established_session_keeps_its_promises_under_any_script(
        flags in 0u8..16,
        stale_time in 0u8..4,
        script in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let mut way_up = vec![0, flags & !1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        way_up.extend([2, 10, 0, 0, 0, 0, stale_time, 0, 0, 10, 0, 3]);
        way_up.extend(script);
        prop_assert!(session_script::run(&way_up) > 0);
    }
}
