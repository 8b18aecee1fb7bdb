//! Everything that needs neither a network nor a real kernel.

mod cache;
mod image;
mod modules;
mod path;
mod requirements;
mod spec;
mod synthetic;
