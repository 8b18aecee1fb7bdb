//! Attributes that are a field of their section's struct, by their rows.

use ktstr_declaration::{Attribute, Fills, Section, Takes};
use proc_macro2::{Literal, TokenStream};
use quote::{format_ident, quote};
use syn::Result;

use crate::arguments::{Argument, Arguments};
use crate::values::{self, option};

/// The fields that are given, as those of the section's struct.
pub(crate) fn given(section: Section, arguments: &Arguments) -> Result<Vec<TokenStream>> {
    let mut fields = Vec::new();
    for attribute in section.attributes() {
        let Some(argument) = arguments.get(attribute.name) else {
            continue;
        };
        fields.extend(match attribute.fills {
            Fills::Section => None,
            Fills::Field(field) => {
                let (field, value) = (format_ident!("{field}"), value(attribute, argument)?);
                Some(quote!(#field: #value,))
            }
            Fills::Optional(field) => {
                let value = option(Some(value(attribute, argument)?));
                let field = format_ident!("{field}");
                Some(quote!(#field: #value,))
            }
        });
    }
    Ok(fields)
}

/// The struct `name` of the section, with the fields that are given and those in `more`.
pub(crate) fn section(
    section: Section,
    name: &str,
    arguments: &Arguments,
    more: &TokenStream,
) -> Result<TokenStream> {
    let given = given(section, arguments)?;
    let name = format_ident!("{name}");
    Ok(quote! {
        ::ktstr::__private::#name {
            #(#given)*
            #more
            ..::ktstr::__private::#name::DEFAULT
        }
    })
}

/// The value as code. Numbers have no suffix: the field has the type.
fn value(attribute: &Attribute, argument: &Argument) -> Result<TokenStream> {
    let number = |number| {
        let literal = Literal::u64_unsuffixed(number);
        quote!(#literal)
    };
    match &attribute.takes {
        Takes::Flag => values::flag(argument).map(|flag| quote!(#flag)),
        Takes::Whole(range) => values::whole(argument, range).map(number),
        Takes::Seconds => values::seconds_as_ms(argument).map(number),
        Takes::Text(example) => values::text(argument, example).map(|text| quote!(#text)),
        Takes::Texts(example) => {
            let texts = values::texts(argument, example)?;
            Ok(quote!(&[#(#texts),*]))
        }
        Takes::Form(form) => Err(argument.wants(form)),
    }
}
