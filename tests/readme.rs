//! The README says what the program says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods
)]

use calico_bgpd::settings::list;

const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
const HEAD: &str = "| variable | flag | meaning | default |";

#[test]
fn the_table_of_settings_is_that_of_the_program() {
    let text = std::fs::read_to_string(README).unwrap();
    let from = text.find(HEAD).expect("the README has the table of settings");
    let to = text[from..].find("\n\n").map_or(text.len(), |end| from + end + 1);
    let table = list::markdown();
    if std::env::var_os("CALICO_BGPD_WRITE_README").is_some() {
        std::fs::write(README, format!("{}{table}{}", &text[..from], &text[to..])).unwrap();
        return;
    }
    assert_eq!(text[from..to], table, "CALICO_BGPD_WRITE_README=1 cargo test --test readme writes it anew");
}
