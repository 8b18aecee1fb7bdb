//! Where the environment is read.

use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens as _;

use crate::SourceFile;
use crate::syntax::{parsed, product_items};

/// Functions of `std::env` that read variables.
const READERS: [&str; 4] = ["var", "var_os", "vars", "vars_os"];

/// Folders beside the product, which may read what they like.
const BESIDE: [&str; 6] = ["benches", "examples", "fuzz", "tests", "xtask", "build.rs"];

/// Product files that read the environment and are not in `allowed`, and entries of `allowed` that don't.
pub fn environment_readers(files: &[SourceFile], allowed: &[&str]) -> Vec<String> {
    let mut readers: Vec<String> = Vec::new();
    let suspects = files
        .iter()
        .filter(|file| !is_beside(&file.path) && file.text.contains("env::"));
    for file in parsed(suspects) {
        let mut tokens = TokenStream::new();
        for item in product_items(file.syntax.items) {
            item.to_tokens(&mut tokens);
        }
        if reads(tokens) {
            readers.push(file.path.display().to_string());
        }
    }
    let unlisted = readers
        .iter()
        .filter(|path| !allowed.contains(&path.as_str()));
    let idle = allowed
        .iter()
        .filter(|path| !readers.iter().any(|reader| reader == *path));
    unlisted
        .map(|path| {
            format!(
                "{path} reads the environment: read it in {}, and hand the value down",
                allowed.join(" or ")
            )
        })
        .chain(idle.map(|path| {
            format!("{path} is listed as a reader of the environment and is none: take it off")
        }))
        .collect()
}

fn is_beside(path: &Path) -> bool {
    path.iter()
        .any(|part| BESIDE.iter().any(|name| part == *name))
}

/// Whether `env::var` or a relative is among the tokens, as a path or as an import from `env`.
fn reads(tokens: TokenStream) -> bool {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let after_env = |at: usize| {
        at >= 3
            && matches!(&tokens[at - 3], TokenTree::Ident(name) if name == "env")
            && is_punct(&tokens[at - 2], ':')
            && is_punct(&tokens[at - 1], ':')
    };
    tokens.iter().enumerate().any(|(at, token)| match token {
        TokenTree::Ident(_) => after_env(at) && is_reader(token),
        TokenTree::Group(group) => {
            let imported = || group.stream().into_iter().any(|token| is_reader(&token));
            (after_env(at) && imported()) || reads(group.stream())
        }
        _ => false,
    })
}

fn is_reader(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Ident(name) if READERS.iter().any(|reader| name == reader))
}

fn is_punct(token: &TokenTree, wanted: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == wanted)
}
