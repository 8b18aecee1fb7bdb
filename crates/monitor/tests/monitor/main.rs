//! The monitor through its public doors, fed by hand.

mod guest;
mod properties;
mod sampler;
mod series;
mod starved;
mod state;
mod verdict;
