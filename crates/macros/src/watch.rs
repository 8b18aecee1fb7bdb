//! What a test says of how the host watches it, and of what comes after.

use std::collections::BTreeMap;

use proc_macro2::TokenStream;
use quote::quote;
use syn::parse::ParseStream;
use syn::{Error, Ident, Path, Result, Token};

use crate::attributes::{Argument, Value, whole};

/// The attributes of this file.
pub(crate) const NAMES: [&str; 2] = ["num_snapshots", "post_vm"];

/// They, read and checked.
pub(crate) struct Watch {
    num_snapshots: u32,
    post_vm: Option<Path>,
}

/// Reads the value of one of [`NAMES`] that has a form of its own.
pub(crate) fn own_form(name: &Ident, input: ParseStream<'_>) -> Result<Option<Value>> {
    if name != "post_vm" || !input.peek(Token![=]) {
        return Ok(None);
    }
    input.parse::<Token![=]>()?;
    let path = input.call(Path::parse_mod_style);
    let what = "`post_vm` takes the name of a function `fn(&VmResult) -> Result<()>`";
    let path = path.map_err(|error| Error::new(error.span(), what))?;
    Ok(Some(Value::Path(path)))
}

pub(crate) fn read(given: &BTreeMap<String, Argument>) -> Result<Watch> {
    let num_snapshots = whole(given, "num_snapshots", 0..=1000)?.unwrap_or(0);
    let post_vm = match given
        .get("post_vm")
        .map(|argument| (argument, argument.value()))
    {
        None => None,
        Some((_, Value::Path(path))) => Some(path.clone()),
        Some((argument, _)) => return Err(argument.wants("the name of a function")),
    };
    Ok(Watch {
        num_snapshots: u32::try_from(num_snapshots).unwrap_or(u32::MAX),
        post_vm,
    })
}

impl Watch {
    /// The fields of a `TestEntry`.
    pub(crate) fn to_tokens(&self) -> TokenStream {
        let num_snapshots = self.num_snapshots;
        let post_vm = match &self.post_vm {
            None => quote!(::core::option::Option::None),
            Some(path) => quote! {
                ::core::option::Option::Some(|vm| ::ktstr::__private::post_vm_result(#path(vm)))
            },
        };
        quote!(num_snapshots: #num_snapshots, post_vm: #post_vm,)
    }
}
