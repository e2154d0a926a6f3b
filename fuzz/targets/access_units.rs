#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ocelli_fuzz::access_units(bytes));
