//! Sources as syntax trees.

use std::path::PathBuf;

use crate::source_file::{SourceFile, is_rust};

/// A file of Rust.
pub(crate) struct RustFile {
    pub(crate) path: PathBuf,
    pub(crate) syntax: syn::File,
}

/// The Rust files among `files`. What can't be parsed is left to the compiler.
pub(crate) fn parsed<'a>(
    files: impl IntoIterator<Item = &'a SourceFile>,
) -> impl Iterator<Item = RustFile> {
    let rust = files.into_iter().filter(|file| is_rust(&file.path));
    rust.filter_map(|file| {
        Some(RustFile {
            path: file.path.clone(),
            syntax: syn::parse_file(&file.text).ok()?,
        })
    })
}

/// The items that are not for tests only.
pub(crate) fn product_items(items: Vec<syn::Item>) -> Vec<syn::Item> {
    let product = items
        .into_iter()
        .filter(|item| !attributes(item).iter().any(is_for_tests));
    product.collect()
}

fn is_for_tests(attribute: &syn::Attribute) -> bool {
    let syn::Meta::List(list) = &attribute.meta else {
        return false;
    };
    let condition: String = list.tokens.to_string().split_whitespace().collect();
    list.path.is_ident("cfg") && ["test", "all(test,loom)"].contains(&condition.as_str())
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}
