#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ringroad::socket::fuzzing::ip_input(bytes));
