//! How long functions are.

use proc_macro2::LineColumn;
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

use crate::SourceFile;
use crate::syntax::parsed;

/// Lines that a function may have: a screen and a half.
const MAX_FUNCTION_LINES: usize = 80;

/// Functions of more lines, from `fn` to the closing brace.
pub fn overlong_functions(files: &[SourceFile]) -> Vec<String> {
    let mut faults = Vec::new();
    // Most files are shorter than that, and parsing takes its time.
    let long = files
        .iter()
        .filter(|file| file.text.lines().count() > MAX_FUNCTION_LINES);
    for file in parsed(long) {
        let mut found = Overlong::default();
        found.visit_file(&file.syntax);
        faults.extend(found.functions.into_iter().map(|(name, line, lines)| {
            let path = file.path.display();
            format!(
                "{path}:{line}: `{name}` has {lines} lines, the most is {MAX_FUNCTION_LINES}: split it by what it does"
            )
        }));
    }
    faults
}

#[derive(Default)]
struct Overlong {
    functions: Vec<(String, usize, usize)>,
}

impl Overlong {
    fn measure(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let LineColumn { line: first, .. } = signature.span().start();
        let LineColumn { line: last, .. } = block.span().end();
        let lines = last - first + 1;
        if lines > MAX_FUNCTION_LINES {
            self.functions
                .push((signature.ident.to_string(), first, lines));
        }
    }
}

impl<'ast> Visit<'ast> for Overlong {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.measure(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.measure(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(block) = &function.default {
            self.measure(&function.sig, block);
        }
        visit::visit_trait_item_fn(self, function);
    }
}
