//! What a message must tell so that it can travel in frames.

use std::borrow::Cow;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest payload of any kind.
pub const MAX_PAYLOAD_BYTES: usize = 8 << 20;

/// The messages of one direction. Their kinds are numbers that the other direction doesn't have.
pub trait Framed: Clone + Serialize + DeserializeOwned {
    /// Number in the frame's header of each variant, in order of declaration: postcard writes a variant as its place in
    /// that order.
    const KIND_OF_VARIANT: &'static [u32];

    /// Number of the variant, as in the frame's header.
    fn kind(&self) -> u32;

    /// Name of the variant with this number, `unknown` if there is none.
    fn name_of_kind(kind: u32) -> &'static str;

    /// Largest payload of a frame of this kind, at most [`MAX_PAYLOAD_BYTES`].
    fn max_payload_bytes(kind: u32) -> usize;

    /// The message, with its text cut to what a frame of its kind holds.
    fn shortened(&self) -> Cow<'_, Self> {
        Cow::Borrowed(self)
    }

    /// Whether `payload` says in its first byte that it is of `kind`. It is not read if it is not: a frame's size is
    /// bounded by its kind, and so is the memory that reading it takes.
    fn is_payload_of(kind: u32, payload: &[u8]) -> bool {
        let variant = payload.first().map(|&variant| usize::from(variant));
        variant.and_then(|variant| Self::KIND_OF_VARIANT.get(variant)) == Some(&kind)
    }
}
