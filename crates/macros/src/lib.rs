//! The `#[ktstr_test]` attribute and `declare_scheduler!`. Their documentation is in the `ktstr` crate, which
//! re-exports them.

mod arguments;
mod checks;
mod declare;
mod expand;
mod expectation;
mod fields;
mod map_write;
mod numa;
mod scheduler;
mod shape;
mod values;

use proc_macro::TokenStream;

/// Turns a function `fn(ctx: &Ctx) -> Result<AssertResult>` into a `#[test]` that runs in a virtual
/// machine of its own. See `ktstr::ktstr_test`.
#[proc_macro_attribute]
pub fn ktstr_test(attributes: TokenStream, item: TokenStream) -> TokenStream {
    expand::expand(attributes.into(), item.into())
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// Declares a scheduler to run tests under. See `ktstr::declare_scheduler`.
#[proc_macro]
pub fn declare_scheduler(input: TokenStream) -> TokenStream {
    declare::expand(input.into())
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}
