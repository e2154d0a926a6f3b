//! The guest component: the versions of the contract, what it may import, and one instance of it in
//! its store.

pub mod boxes;
#[cfg(test)]
mod boxes_tests;
#[cfg(test)]
pub(crate) mod components;
pub mod deadline;
pub mod frames;
pub mod instance;
pub mod keyvalue;
#[cfg(test)]
mod limit_tests;
pub mod limits;
pub mod log;
pub mod nn;
#[cfg(test)]
mod nn_tests;
pub mod output;
pub mod state;
pub mod support;
#[cfg(test)]
mod tests;
pub mod versions;
