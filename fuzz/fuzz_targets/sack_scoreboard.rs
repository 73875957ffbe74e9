#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ringroad::tcp::fuzzing::sack_scoreboard(bytes));
