//! Interface name patterns (FILT-56, NODE-35).
//!
//! Owns: what matches: `*` stands for any run of characters, also the empty one; everything else for itself,
//! case-sensitively. Never: knows interfaces.

/// Whether the whole of `name` matches `pattern`. Linear in both but for backtracking to the last `*`.
pub fn matches(pattern: &str, name: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let Some(last) = pieces.next_back() else {
        return rest.is_empty();
    };
    // The leftmost place of each piece leaves the most for those that follow.
    for piece in pieces {
        match rest.split_once(piece) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Whether any of the patterns matches.
pub fn any(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_star_is_any_run_and_everything_else_is_itself() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("*", "eth0", true),
            ("cali*", "cali0a1b", true),
            ("cali*", "cali", true),
            ("cali*", "xcali", false),
            ("*.calico", "vxlan.calico", true),
            ("*.calico", "", false),
            ("bpf*.cali", "bpfin.cali", true),
            ("bpf*.cali", "bpf.cali", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "acb", false),
            ("ab*ba", "aba", false),
            ("eth0", "eth0", true),
            ("eth0", "eth01", false),
            ("ETH*", "eth0", false),
            ("", "", true),
            ("", "a", false),
            ("**", "x", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern:?} on {name:?}");
        }
    }

    /// The definition, without cleverness.
    fn slow(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) if slow(rest, name) => true,
            (Some((b'*', _)), Some((_, tail))) => slow(pattern, tail),
            (Some((p, rest)), Some((n, tail))) => p == n && slow(rest, tail),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn the_fast_way_agrees_with_the_definition(pattern in "[ab*]{0,8}", name in "[ab]{0,8}") {
            prop_assert_eq!(matches(&pattern, &name), slow(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
