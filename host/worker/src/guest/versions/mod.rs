//! The versions of the contract that are served, `wit/` holding a folder for each: one file adapts
//! each of them to the newest, and one enum passes calls on.
//!
//! ```text
//! component for 0.1 <--> v0_1 --> older --> host's functions: frames, boxes, nn, log, config
//! component for 0.2 <--> v0_2 ----^         ^
//! component for 0.3 <--> v0_3 --------------'
//! ```
//!
//! The host's functions are written for the types of the [`newest`] version. An older one's file
//! generates what its components export; `older` offers the newest's functions under the older
//! names, and converts the outputs of their `process`. The `wasi` interfaces have versions of their own and are there for every component.

use ocelli_protocol::contract::{PACKAGE, SERVED};
use ocelli_protocol::worker::{Description, ModelNeed};
use wasmtime::component::{Component, HasSelf, Linker, Resource};
use wasmtime::{Engine, Store};

use super::boxes::Boxes;
use super::config::GuestSettings;
use super::frames::Frames;
use super::keyvalue::{self, KeyValue};
use super::log::GuestLog;
use super::models::DescribedModels;
use super::newest;
use super::nn::{self, Nn};
use super::resources::FrameHandle;
use super::state::InstanceState;

mod older;
#[cfg(test)]
mod tests;
pub mod v0_1;
pub mod v0_2;
pub mod v0_3;

/// The interface of [`PACKAGE`] that a component exports, before the version.
const INTERFACE: &str = "/pipeline@";

/// The versions that are [`SERVED`], as a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum ContractVersion {
    V0_1,
    V0_2,
    V0_3,
}

impl ContractVersion {
    /// All, oldest first, as [`SERVED`].
    const ALL: [Self; SERVED.len()] = [Self::V0_1, Self::V0_2, Self::V0_3];

    fn of(engine: &Engine, component: &Component) -> wasmtime::Result<Self> {
        let ty = component.component_type();
        Self::among(ty.exports(engine).map(|(name, _)| name)).map_err(wasmtime::Error::msg)
    }

    /// The newest version for which a component with exports of these names has a pipeline.
    fn among<'a>(exports: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let exported: Vec<_> = exports
            .filter_map(|name| name.strip_prefix(PACKAGE)?.strip_prefix(INTERFACE))
            .collect();
        let mut served = SERVED.iter().zip(Self::ALL).rev();
        served.find(|(name, _)| exported.contains(name)).map(|(_, version)| version).ok_or_else(
            || {
                let served = SERVED.join(", ");
                if exported.is_empty() {
                    return format!(
                        "not a pipeline: the component does not export \
                    {PACKAGE}{INTERFACE}(one of {served})"
                    );
                }
                let theirs = exported.join(", ");
                format!("the component is made for {PACKAGE}@{theirs}, this host serves {served}")
            },
        )
    }
}

/// Passes a call on to the version's generated code.
macro_rules! dispatch {
    ($value:expr, $inner:ident => $call:expr) => {
        match $value {
            Self::V0_1($inner) => $call,
            Self::V0_2($inner) => $call,
            Self::V0_3($inner) => $call,
        }
    };
}

/// A component whose imports are linked.
pub enum LinkedComponent {
    /// A component made for 0.1.
    V0_1(v0_1::CameraPipelinePre<InstanceState>),
    /// A component made for 0.2.
    V0_2(v0_2::CameraPipelinePre<InstanceState>),
    /// A component made for 0.3.
    V0_3(v0_3::CameraPipelinePre<InstanceState>),
}

impl LinkedComponent {
    /// Links a component. A version that is not served is an error, and so is an import that this
    /// host does not offer.
    pub fn new(engine: &Engine, component: &Component) -> wasmtime::Result<Self> {
        let version = ContractVersion::of(engine, component)?;
        let linked = linker(engine)?.instantiate_pre(component)?;
        Ok(match version {
            ContractVersion::V0_1 => Self::V0_1(v0_1::CameraPipelinePre::new(linked)?),
            ContractVersion::V0_2 => Self::V0_2(v0_2::CameraPipelinePre::new(linked)?),
            ContractVersion::V0_3 => Self::V0_3(v0_3::CameraPipelinePre::new(linked)?),
        })
    }

    /// An instance in this store.
    pub async fn instantiate(
        &self,
        store: &mut Store<InstanceState>,
    ) -> wasmtime::Result<PipelineInstance> {
        Ok(match self {
            Self::V0_1(linked) => PipelineInstance::V0_1(linked.instantiate_async(store).await?),
            Self::V0_2(linked) => PipelineInstance::V0_2(linked.instantiate_async(store).await?),
            Self::V0_3(linked) => PipelineInstance::V0_3(linked.instantiate_async(store).await?),
        })
    }
}

/// The imports of components of every version.
fn linker(engine: &Engine) -> wasmtime::Result<Linker<InstanceState>> {
    use newest::wasi::{config, logging, nn as wit};
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wit::errors::add_to_linker::<_, Nn>(&mut linker, InstanceState::nn)?;
    wit::tensor::add_to_linker::<_, Nn>(&mut linker, InstanceState::nn)?;
    wit::graph::add_to_linker::<_, Nn>(&mut linker, InstanceState::nn)?;
    wit::inference::add_to_linker::<_, Nn>(&mut linker, InstanceState::nn)?;
    nn::shadow_tensor_data(&mut linker, InstanceState::table)?;
    keyvalue::bindings::Keeps::add_to_linker::<_, KeyValue>(&mut linker, InstanceState::keyvalue)?;
    logging::logging::add_to_linker::<_, HasSelf<GuestLog>>(&mut linker, InstanceState::log)?;
    config::store::add_to_linker::<_, HasSelf<GuestSettings>>(
        &mut linker,
        InstanceState::settings,
    )?;
    // `results` has types alone, which need nothing in a linker.
    newest::frames::add_to_linker::<_, Frames>(&mut linker, InstanceState::frames)?;
    newest::boxes::add_to_linker::<_, Boxes>(&mut linker, InstanceState::boxes)?;
    newest::budget::add_to_linker::<_, Nn>(&mut linker, InstanceState::nn)?;
    newest::models::add_to_linker::<_, HasSelf<DescribedModels>>(
        &mut linker,
        InstanceState::models,
    )?;
    for older in SERVED.iter().rev().skip(1) {
        older::link(&mut linker, older)?;
    }
    Ok(linker)
}

/// An instance, called in the newest version's types.
pub enum PipelineInstance {
    /// An instance made for 0.1.
    V0_1(v0_1::CameraPipeline),
    /// An instance made for 0.2.
    V0_2(v0_2::CameraPipeline),
    /// An instance made for 0.3.
    V0_3(v0_3::CameraPipeline),
}

/// The calls of the contract. The outer error is a trap, the inner one the component's own.
impl PipelineInstance {
    /// See `describe` in the WIT.
    pub async fn describe(
        &self,
        store: &mut Store<InstanceState>,
    ) -> wasmtime::Result<Description> {
        // Each version has a type of its own with the same fields.
        dispatch!(self, guest => {
            let described = guest.ocelli_pipeline_pipeline().call_describe(store).await?;
            let models = described.models.into_iter();
            Ok(Description {
                name: described.name,
                version: described.version,
                models: models
                    .map(|need| ModelNeed { name: need.name, inputs: need.inputs })
                    .collect(),
                settings_schema: described.settings_schema,
            })
        })
    }

    /// See `init` in the WIT.
    pub async fn init(
        &self,
        store: &mut Store<InstanceState>,
        settings: &str,
    ) -> wasmtime::Result<Result<(), String>> {
        dispatch!(self, guest => guest.ocelli_pipeline_pipeline().call_init(store, settings).await)
    }

    /// See `process` in the WIT.
    pub async fn process(
        &self,
        store: &mut Store<InstanceState>,
        frame: Resource<FrameHandle>,
    ) -> wasmtime::Result<Result<newest::results::Output, String>> {
        match self {
            Self::V0_1(guest) => {
                let output = guest.ocelli_pipeline_pipeline().call_process(store, frame).await?;
                Ok(output.map(older::output))
            }
            Self::V0_2(guest) => {
                let output = guest.ocelli_pipeline_pipeline().call_process(store, frame).await?;
                Ok(output.map(older::output))
            }
            Self::V0_3(guest) => guest.ocelli_pipeline_pipeline().call_process(store, frame).await,
        }
    }

    /// See `query` in the WIT. `None`: the instance's version of the contract has no queries.
    pub async fn query(
        &self,
        store: &mut Store<InstanceState>,
        request: &str,
    ) -> wasmtime::Result<Option<Result<String, String>>> {
        match self {
            Self::V0_1(_) | Self::V0_2(_) => Ok(None),
            Self::V0_3(guest) => {
                guest.ocelli_pipeline_pipeline().call_query(store, request).await.map(Some)
            }
        }
    }

    /// See `command` in the WIT.
    pub async fn command(
        &self,
        store: &mut Store<InstanceState>,
        request: &str,
    ) -> wasmtime::Result<Result<String, String>> {
        dispatch!(self, guest => guest.ocelli_pipeline_pipeline().call_command(store, request).await)
    }

    /// See `snapshot` in the WIT.
    pub async fn snapshot(&self, store: &mut Store<InstanceState>) -> wasmtime::Result<Vec<u8>> {
        dispatch!(self, guest => guest.ocelli_pipeline_pipeline().call_snapshot(store).await)
    }

    /// See `restore` in the WIT.
    pub async fn restore(
        &self,
        store: &mut Store<InstanceState>,
        version: &str,
        state: &[u8],
    ) -> wasmtime::Result<Result<(), String>> {
        dispatch!(self, guest => guest.ocelli_pipeline_pipeline().call_restore(store, version, state).await)
    }
}
