//! The guest component: the versions of the contract, the capabilities that it may import, and one
//! instance of it in its store.

pub mod boxes;
#[cfg(test)]
mod boxes_tests;
mod budget;
mod config;
mod console;
mod deadline;
mod frames;
pub mod instance;
mod keyvalue;
#[cfg(test)]
mod limit_tests;
pub(crate) mod limits;
mod log;
mod models;
#[cfg(test)]
mod motion_tests;
mod nn;
#[cfg(test)]
mod nn_tests;
mod output;
mod resources;
pub mod state;
mod tensor;
#[cfg(test)]
pub(crate) mod tests;
pub mod versions;

/// The version of the contract whose types the host's functions are written for.
pub use versions::v0_3 as newest;

/// The result of a host function. The outer error ends the instance, the component handles the
/// inner one.
type HostResult<T, E> = wasmtime::Result<Result<T, E>>;
