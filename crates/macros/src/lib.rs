//! The `#[ktstr_test]` attribute. Its documentation is in the `ktstr` crate, which re-exports it.

mod attributes;
mod expand;
mod numa;

use proc_macro::TokenStream;

/// Turns a function `fn(ctx: &Ctx) -> Result<AssertResult>` into a `#[test]` that runs in a virtual
/// machine of its own. See `ktstr::ktstr_test`.
#[proc_macro_attribute]
pub fn ktstr_test(attributes: TokenStream, item: TokenStream) -> TokenStream {
    expand::expand(attributes.into(), item.into())
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}
