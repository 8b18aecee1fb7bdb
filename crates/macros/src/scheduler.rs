//! What a test says of its scheduler.

use ktstr_declaration::{Needs, Section};
use proc_macro2::TokenStream;
use quote::quote;
use syn::{Error, Path, Result};

use crate::arguments::Arguments;
use crate::values::{option, path};
use crate::{fields, map_write};

/// The scheduler that the test names.
pub(crate) fn named(arguments: &Arguments) -> Result<Option<Path>> {
    let Some(argument) = arguments.get("scheduler") else {
        let without = arguments.first_that_needs(|needs| needs == Needs::Scheduler);
        return match without {
            None => Ok(None),
            Some(argument) => {
                let message = format!("`{}` needs a `scheduler`", argument.name());
                Err(Error::new(argument.name().span(), message))
            }
        };
    };
    let what = "the name of a scheduler, as `declare_scheduler!` gave it";
    path(argument, what).map(Some)
}

/// `Option<SchedulerUse>`.
pub(crate) fn expand(arguments: &Arguments, scheduler: Option<&Path>) -> Result<TokenStream> {
    let writes = map_write::expand(arguments)?;
    let options = fields::section(Section::Scheduler, "SchedulerOptions", arguments, &writes)?;
    Ok(option(scheduler.map(|path| {
        quote! {
            ::ktstr::__private::SchedulerUse {
                scheduler: &#path,
                options: #options,
                manifest_dir: ::core::env!("CARGO_MANIFEST_DIR"),
            }
        }
    })))
}
