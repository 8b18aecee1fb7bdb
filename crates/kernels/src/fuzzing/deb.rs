//! Fuzz target: what must hold of any file that is said to be a Debian package.

use std::convert::Infallible;
use std::path::Component;

use super::assert_message;
use crate::sources::deb::{self, Limits, Part, Role, Stop};

/// Small, so that what goes beyond is seen.
const LIMITS: Limits = Limits {
    file_bytes: 4 << 10,
    unpacked_bytes: 64 << 10,
    files: 40,
};

/// A whole package, or the tar in it, as the first byte says. No more is taken out of it than the limits allow,
/// and nothing that would be written outside the module tree.
pub fn deb(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else {
        return;
    };
    let mut taken = Taken::default();
    let take = |part: Part| {
        taken.add(&part);
        Ok::<_, Infallible>(())
    };
    let result = if kind % 2 == 0 {
        deb::read(bytes, LIMITS, take)
    } else {
        deb::read_tree(bytes, LIMITS, take)
    };
    match result {
        Ok(()) => {}
        Err(Stop::Malformed(why)) => assert_message(&why),
        Err(Stop::OtherArchitecture(name)) => assert_message(&name),
        Err(Stop::Taker(never)) => match never {},
    }
}

#[derive(Default)]
struct Taken {
    files: u32,
    bytes: u64,
}

impl Taken {
    fn add(&mut self, part: &Part) {
        self.files += 1;
        self.bytes += part.bytes.len() as u64;
        assert!(part.bytes.len() as u64 <= LIMITS.file_bytes);
        assert!(self.bytes <= LIMITS.unpacked_bytes && self.files <= LIMITS.files);
        assert_message(&part.release);
        if let Role::Module(path) = &part.role {
            let inside = |component| matches!(component, Component::Normal(_));
            assert!(path.components().all(inside) && path.components().next().is_some());
            assert_message(path.to_str().expect("it was text in the package"));
        }
    }
}
