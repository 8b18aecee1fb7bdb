#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ktstr_wire::fuzzing::host_frames(input));
