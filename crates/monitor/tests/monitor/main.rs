//! The monitor through its public doors, fed by hand.

mod guest;
mod properties;
mod sampler;
mod series;
mod state;
mod verdict;
