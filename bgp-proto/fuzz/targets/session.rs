//! One session under a script of octets: connections, messages whole and broken, ticks in time and late, faults, commands.
//! What a script may contain and what must hold is in `tests/session_script`, which the property test uses too.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/session_script/mod.rs"]
mod session_script;

fuzz_target!(|script: &[u8]| {
    session_script::run(script);
});
