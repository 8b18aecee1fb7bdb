#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ktstr_monitor::fuzzing::state_reader(input));
