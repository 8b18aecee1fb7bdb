//! Finding a global variable among all BPF objects.

use ktstr_introspect::Budget;
use ktstr_introspect::bpf::{GlobalError, GlobalField, ObjectBtfCache};
use ktstr_introspect::kernel::ReadError;

use super::bpf::MapReader;

/// A section that the kernel lets nobody write once it is loaded; the verifier has taken its values for granted.
const READ_ONLY: &str = ".rodata";

/// Why a global variable can't be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GlobalLookupError {
    /// No loaded program has any.
    #[error("no BPF program with global variables is loaded")]
    NoGlobals,
    /// Nobody has it.
    #[error("no BPF program has a global variable `{path}`; there are: {variables}")]
    NotFound {
        /// What was looked for.
        path: String,
        /// What there is.
        variables: String,
    },
    /// Several have it.
    #[error("more than one BPF object has a global variable `{path}`: maps {maps}")]
    Ambiguous {
        /// What was looked for.
        path: String,
        /// Their maps' ids.
        maps: String,
    },
    /// It is a constant.
    #[error(
        "`{path}` is in `{READ_ONLY}`: its value was taken for granted when the program was loaded"
    )]
    ReadOnly {
        /// What was looked for.
        path: String,
    },
    /// It is no number.
    #[error(transparent)]
    Field(GlobalError),
    /// The maps can't be read.
    #[error("the kernel's BPF maps can't be read")]
    Read(#[from] ReadError),
}

impl MapReader {
    /// The one number at `path` among the global variables of all loaded objects that can be written.
    pub(super) fn find_global(
        &self,
        path: &str,
        budget: &Budget,
    ) -> Result<GlobalField, GlobalLookupError> {
        let cache = ObjectBtfCache::default();
        let mut found = Vec::new();
        let mut variables = Vec::new();
        let mut is_constant = false;
        for map in self.maps(budget)? {
            let Some(section) = self.section(&map, &cache, budget)? else {
                continue;
            };
            let constant = section.name.starts_with(READ_ONLY);
            match section.field(path, budget) {
                Ok(_) if constant => is_constant = true,
                Ok(field) => found.push((map.id, field)),
                Err(GlobalError::NotFound { variables: has, .. }) if !constant => {
                    let listed = budget.charge_bytes(has.len() as u64);
                    listed.map_err(ReadError::from)?;
                    variables.push(has);
                }
                Err(GlobalError::NotFound { .. }) => {}
                Err(error) => return Err(GlobalLookupError::Field(error)),
            }
        }
        let path = path.to_owned();
        match (found.pop(), found.as_slice()) {
            (Some((_, field)), []) => Ok(field),
            (Some((last, _)), others) => {
                let ids = others.iter().map(|(id, _)| *id).chain([last]);
                let maps: Vec<_> = ids.map(|id| id.to_string()).collect();
                let maps = maps.join(", ");
                Err(GlobalLookupError::Ambiguous { path, maps })
            }
            (None, _) if is_constant => Err(GlobalLookupError::ReadOnly { path }),
            (None, _) if variables.is_empty() => Err(GlobalLookupError::NoGlobals),
            (None, _) => {
                let variables = variables.join(", ");
                Err(GlobalLookupError::NotFound { path, variables })
            }
        }
    }
}
