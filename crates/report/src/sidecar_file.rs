//! Reading a sidecar from disk, and refusing what can't be read rightly.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::{SCHEMA_VERSION, Sidecar};

/// A sidecar can't be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SidecarError {
    /// The file can't be opened or read.
    #[error("can't read the sidecar {}", path.display())]
    Read {
        /// The sidecar.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is cut off, or no sidecar at all.
    #[error("{} is damaged: it is not a test's sidecar", path.display())]
    Damaged {
        /// The sidecar.
        path: PathBuf,
        /// Where reading stopped.
        source: serde_json::Error,
    },
    /// The file was written by a newer version.
    #[error(
        "{} has schema {found}, this version reads up to {SCHEMA_VERSION}: read it with the version of \
         `cargo ktstr` that wrote it, or a newer one",
        path.display()
    )]
    NewerSchema {
        /// The sidecar.
        path: PathBuf,
        /// Its schema.
        found: u32,
    },
}

impl SidecarError {
    /// The file that it is about.
    pub fn path(&self) -> &Path {
        match self {
            Self::Read { path, .. }
            | Self::Damaged { path, .. }
            | Self::NewerSchema { path, .. } => path,
        }
    }
}

impl Sidecar {
    /// Reads a sidecar. One with a schema larger than [`SCHEMA_VERSION`] is refused, whatever else it holds.
    pub fn read(path: &Path) -> Result<Self, SidecarError> {
        #[derive(Deserialize)]
        struct Version {
            schema: u32,
        }

        let bytes = fs::read(path).map_err(|source| SidecarError::Read {
            path: path.to_owned(),
            source,
        })?;
        let damaged = |source| SidecarError::Damaged {
            path: path.to_owned(),
            source,
        };
        let Version { schema } = serde_json::from_slice(&bytes).map_err(damaged)?;
        if schema > SCHEMA_VERSION {
            return Err(SidecarError::NewerSchema {
                path: path.to_owned(),
                found: schema,
            });
        }
        serde_json::from_slice(&bytes).map_err(damaged)
    }

    /// Reads what [`Sidecar::to_json`] of the same build wrote.
    pub fn from_json(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// The sidecar as it is written to disk: JSON with one field a line, and a final newline.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}
