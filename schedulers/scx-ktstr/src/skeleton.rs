//! The BPF object's skeleton, as libbpf-cargo generates it.

#![expect(unsafe_code, reason = "generated")]
#![allow(warnings, clippy::undocumented_unsafe_blocks, reason = "generated")]

include!(concat!(env!("OUT_DIR"), "/main.skel.rs"));
