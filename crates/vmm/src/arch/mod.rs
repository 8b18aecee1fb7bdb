//! What depends on the guest's architecture.

pub(crate) mod x86_64;
