//! Devices that run models: whether one is usable, how much of its memory a session may take, and
//! which nodes of a graph it runs.
//!
//! Each device that a model names is tried once, when the process starts, with a graph of one node:
//! that loads the provider's library and opens the device while the process may still open files,
//! and it shows the fault of a device before any camera needs it. No provider is registered in a
//! way that lets ONNX Runtime go on without it.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_uint};
use std::ptr;

use libloading::Library;
use ocelli_protocol::inference::{Device, Model};
use ort::AsPointer;
use ort::ep::{ArenaExtendStrategy, CUDA, ExecutionProviderDispatch, OpenVINO, TensorRT};
use ort::session::Session;

use crate::error::EngineError;

/// The keys that set a model's device, for errors.
const KEY: &str = "`inference.device`, or `device` in its `[[inference.models]]`";

/// The library of NVIDIA's driver.
const DRIVER: &str = "libcuda.so.1";

/// Why a device cannot run models.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum DeviceError {
    #[error("there is no device {0}")]
    Missing(u32),
    /// The execution provider's own words.
    #[error("{0}")]
    Provider(String),
    /// It loads and then leaves every node to the processor.
    #[error("{0} runs none of its nodes")]
    Unused(&'static str),
    #[error("no model was on it when this process started; restart the host to use it")]
    NotTried,
    #[error(
        "its memory is not known, so `resource_limits.gpu_memory_fraction` cannot be kept: {0}"
    )]
    Memory(Box<DeviceError>),
    #[error("`resource_limits.gpu_memory_fraction` = {0} leaves it no memory")]
    Fraction(f32),
    /// The driver's library does not load: the loader's words.
    #[error("{0}")]
    Driver(String),
    #[error("{DRIVER} does not export `{0}`")]
    Symbol(&'static str),
    /// A call of the driver failed: the call, and CUDA's name and number of the error.
    #[error("{DRIVER}: {call}: {name} ({number})")]
    Call { call: &'static str, name: String, number: i32 },
}

/// A device that was tried.
#[derive(Debug, Clone, Default)]
pub(crate) struct UsableDevice {
    /// Bytes that the arena of a session may take there. `None`: unbounded.
    memory: Option<usize>,
}

/// The devices that were tried, each with its result.
#[derive(Debug, Default)]
pub(crate) struct Devices {
    tried: BTreeMap<String, Result<UsableDevice, DeviceError>>,
}

impl Devices {
    /// Tries each device that a model names. `probe` makes a session with these providers of a
    /// graph that every provider runs. The error names the first model whose device is not usable.
    pub(crate) fn try_all<'a>(
        models: impl IntoIterator<Item = &'a Model>,
        memory_fraction: f32,
        probe: impl Fn(Vec<ExecutionProviderDispatch>) -> Result<(), DeviceError>,
    ) -> Result<Self, EngineError> {
        let mut devices = Self::default();
        for model in models.into_iter().filter(|model| model.device != Device::Cpu) {
            let device = model.device;
            let tried = devices.tried.entry(device.to_string()).or_insert_with(|| {
                let tried = try_one(device, memory_fraction, &probe);
                if let Err(reason) = &tried {
                    tracing::warn!(%device, "the device is not usable: {reason}");
                }
                tried
            });
            if let (Err(reason), false) = (tried, model.fallback) {
                return Err(EngineError::Configuration(refusal(model, reason)));
            }
        }
        Ok(devices)
    }

    /// Whether a device other than the processor is in use.
    pub(crate) fn any_usable(&self) -> bool {
        self.tried.values().any(Result::is_ok)
    }

    /// The providers of a model's sessions: none for the processor, which needs no naming. The
    /// error says why its device cannot be used.
    pub(crate) fn providers(
        &self,
        device: Device,
    ) -> Result<Vec<ExecutionProviderDispatch>, DeviceError> {
        match self.tried.get(&device.to_string()) {
            _ if device == Device::Cpu => Ok(Vec::new()),
            Some(Ok(usable)) => providers(device, usable),
            Some(Err(reason)) => Err(reason.clone()),
            None => Err(DeviceError::NotTried),
        }
    }
}

/// The error of a model whose device is not usable.
pub(crate) fn refusal(model: &Model, reason: &DeviceError) -> String {
    format!(
        "model \"{}\" is to run on {} ({KEY}), which is not usable: {reason}; name an ONNX \
         Runtime that is built for it in `inference.library`, choose another device, or let the \
         processor take over with `fallback = \"cpu\"`",
        model.name, model.device
    )
}

fn try_one(
    device: Device,
    memory_fraction: f32,
    probe: impl Fn(Vec<ExecutionProviderDispatch>) -> Result<(), DeviceError>,
) -> Result<UsableDevice, DeviceError> {
    // Without a bound first: the error of a missing provider says more than the driver's.
    let unbounded = UsableDevice::default();
    probe(providers(device, &unbounded)?)?;
    let number = match device {
        Device::Cuda(number) | Device::Tensorrt(number) => number,
        Device::Cpu | Device::Openvino => return Ok(unbounded),
    };
    let total = total_memory(number).map_err(|reason| DeviceError::Memory(Box::new(reason)))?;
    let limit = total as f64 * f64::from(memory_fraction);
    if limit < 1.0 {
        return Err(DeviceError::Fraction(memory_fraction));
    }
    tracing::info!(%device, total, limit = limit as usize, "the device is usable");
    Ok(UsableDevice { memory: Some(limit as usize) })
}

/// The name of a device's execution provider in ONNX Runtime.
pub(crate) fn provider_name(device: Device) -> &'static str {
    match device {
        Device::Cpu => "CPUExecutionProvider",
        Device::Cuda(_) => "CUDAExecutionProvider",
        Device::Tensorrt(_) => "TensorrtExecutionProvider",
        Device::Openvino => "OpenVINOExecutionProvider",
    }
}

/// The providers of a device in order of preference. Each has to be usable.
fn providers(
    device: Device,
    usable: &UsableDevice,
) -> Result<Vec<ExecutionProviderDispatch>, DeviceError> {
    let id = |number: u32| i32::try_from(number).map_err(|_| DeviceError::Missing(number));
    let cuda = |number| {
        // An arena that doubles would take up to twice the memory needed, and never gives it back.
        let cuda = CUDA::default()
            .with_device_id(id(number)?)
            .with_arena_extend_strategy(ArenaExtendStrategy::SameAsRequested);
        Ok::<_, DeviceError>(match usable.memory {
            Some(limit) => cuda.with_memory_limit(limit),
            None => cuda,
        })
    };
    let providers = match device {
        Device::Cpu => Vec::new(),
        Device::Cuda(number) => vec![cuda(number)?.build()],
        Device::Tensorrt(number) => {
            let tensorrt = TensorRT::default().with_device_id(id(number)?);
            let tensorrt = match usable.memory {
                Some(limit) => tensorrt.with_max_workspace_size(limit),
                None => tensorrt,
            };
            // CUDA takes the nodes that TensorRT does not know.
            vec![tensorrt.build(), cuda(number)?.build()]
        }
        Device::Openvino => vec![OpenVINO::default().build()],
    };
    Ok(providers.into_iter().map(ExecutionProviderDispatch::error_on_failure).collect())
}

/// The memory of an NVIDIA device in bytes, by the driver's library. It numbers devices as CUDA
/// does.
#[allow(unsafe_code)]
fn total_memory(number: u32) -> Result<u64, DeviceError> {
    type Init = unsafe extern "C" fn(c_uint) -> c_int;
    type Get = unsafe extern "C" fn(*mut c_int, c_int) -> c_int;
    type TotalMemory = unsafe extern "C" fn(*mut usize, c_int) -> c_int;
    type ErrorName = unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int;

    let ordinal = c_int::try_from(number).map_err(|_| DeviceError::Missing(number))?;
    // SAFETY: the driver's library; its initialisers run in every program that uses the device.
    let driver = unsafe { Library::new(DRIVER) };
    let driver = driver.map_err(|error| {
        // The error proper says no more than that `dlopen` failed; its source says why.
        let source = std::error::Error::source(&error).map(ToString::to_string);
        DeviceError::Driver(source.unwrap_or_else(|| error.to_string()))
    })?;
    let lacks = |name: &'static str| move |_| DeviceError::Symbol(name);
    // SAFETY: the signatures of CUDA's driver interface, which have not changed since version 3.2.
    let (init, get, total, error_name) = unsafe {
        (
            driver.get::<Init>(b"cuInit").map_err(lacks("cuInit"))?,
            driver.get::<Get>(b"cuDeviceGet").map_err(lacks("cuDeviceGet"))?,
            driver
                .get::<TotalMemory>(b"cuDeviceTotalMem_v2")
                .map_err(lacks("cuDeviceTotalMem_v2"))?,
            driver.get::<ErrorName>(b"cuGetErrorName").map_err(lacks("cuGetErrorName"))?,
        )
    };
    let check = |call: &'static str, number: c_int| {
        if number == 0 {
            return Ok(());
        }
        let mut name = ptr::null();
        // SAFETY: the name is a static string, or left null where the number is not known.
        let name = unsafe {
            error_name(number, &mut name);
            if name.is_null() {
                "unknown".into()
            } else {
                CStr::from_ptr(name).to_string_lossy().into_owned()
            }
        };
        Err(DeviceError::Call { call, name, number })
    };
    let (mut device, mut bytes) = (0, 0);
    // SAFETY: each call writes one number to where it is told to, and comes after the one that it
    // needs.
    unsafe {
        check("cuInit", init(0))?;
        check("cuDeviceGet", get(&mut device, ordinal))?;
        check("cuDeviceTotalMem", total(&mut bytes, device))?;
    }
    // The provider uses it for as long as the process lives.
    std::mem::forget(driver);
    Ok(bytes as u64)
}

/// Nodes of a session's graph by the provider that runs them, sorted by name, as ONNX Runtime
/// assigned them after its optimisations. The session was made with
/// `session.record_ep_graph_assignment_info`.
#[allow(unsafe_code)]
pub(crate) fn nodes(session: &Session) -> ort::Result<Vec<(String, u32)>> {
    let mut counts = BTreeMap::<String, u32>::new();
    let (mut subgraphs, mut length) = (ptr::null(), 0);
    // SAFETY: the session is alive, and what is returned belongs to it and does not change. Arrays
    // have as many entries as is said beside them; the statuses are taken over.
    unsafe {
        let api = ort::api();
        let status =
            (api.Session_GetEpGraphAssignmentInfo)(session.ptr(), &mut subgraphs, &mut length);
        ort::Error::result_from_status(status)?;
        if subgraphs.is_null() {
            return Ok(Vec::new());
        }
        for &subgraph in std::slice::from_raw_parts(subgraphs, length) {
            let (mut name, mut nodes, mut count) = (ptr::null(), ptr::null(), 0);
            ort::Error::result_from_status((api.EpAssignedSubgraph_GetEpName)(
                subgraph, &mut name,
            ))?;
            ort::Error::result_from_status((api.EpAssignedSubgraph_GetNodes)(
                subgraph, &mut nodes, &mut count,
            ))?;
            if !name.is_null() {
                let name = CStr::from_ptr(name).to_string_lossy().into_owned();
                let sum = counts.entry(name).or_default();
                *sum = sum.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
            }
        }
    }
    Ok(counts.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    use ocelli_protocol::inference::ErrorCode;

    use crate::error::RequestError;
    use crate::model::{Catalog, ModelSession};
    use crate::runtime::Runtime;

    const OTHERS: [(&str, &str); 3] = [
        ("cuda:0", "CUDA execution provider is not enabled"),
        ("tensorrt:1", "TensorRT execution provider is not enabled"),
        ("openvino", "OpenVINOExecutionProvider execution provider is not"),
    ];

    /// ONNX Runtime, where `./x setup` puts it.
    #[allow(unsafe_code)]
    fn runtime() -> Runtime {
        let variable = |name| std::env::var_os(name).map(PathBuf::from);
        let cache = variable("OCELLI_CACHE")
            .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("ocelli")))
            .or_else(|| Some(variable("HOME")?.join(".cache/ocelli")));
        let path = cache.unwrap().join("onnxruntime-1.28.0/libonnxruntime.so.1.28.0");
        // SAFETY: the same value each time, before the library is loaded, and only std reads the
        // environment here.
        unsafe { std::env::set_var("ORT_DISABLE_TELEMETRY", "1") };
        Runtime::load(&path, None).unwrap_or_else(|error| panic!("{error}"))
    }

    fn detector(device: &str, fallback: bool) -> Model {
        #[derive(serde::Deserialize)]
        struct Description {
            name: String,
            sha256: String,
            inputs: Vec<ocelli_protocol::inference::TensorDeclaration>,
            outputs: Vec<ocelli_protocol::inference::TensorDeclaration>,
        }
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models/nanodet-g-416");
        let text = std::fs::read_to_string(folder.join("model.toml")).unwrap();
        let Description { name, sha256, inputs, outputs } = toml::from_str(&text).unwrap();
        let path = folder.join("model.onnx").to_str().unwrap().to_owned();
        let device = device.parse().unwrap();
        Model { name, path, sha256, inputs, outputs, device, fallback, batching: None }
    }

    fn load(model: &Model, runtime: &Runtime) -> Result<ModelSession, RequestError> {
        let catalog = Catalog::new(vec![model.clone()], &[]).unwrap();
        catalog.find(&model.name).unwrap().load(runtime)
    }

    /// Whether this machine has a device, and a library built for it, that these tests expect it to
    /// lack.
    fn skipped(device: &str) -> bool {
        let usable = runtime().with_devices(&[detector(device, false)], 0.5).is_ok();
        if usable {
            ocelli_testkit::skip::skip(&format!("in part: {device} is usable on this machine"));
        }
        usable
    }

    #[test]
    fn a_model_on_the_processor_tells_that_it_runs_every_node() {
        let model = detector("cpu", false);
        let runtime = runtime().with_devices(std::slice::from_ref(&model), 0.5).unwrap();
        assert!(!runtime.uses_devices());
        let loaded = load(&model, &runtime).unwrap();
        let [(provider, nodes)] = loaded.runs.nodes.as_slice() else { panic!("{:?}", loaded.runs) };
        assert_eq!(provider, "CPUExecutionProvider");
        assert!(*nodes > 50, "{nodes} nodes");
        assert_eq!((loaded.runs.fell_back, loaded.runs.sha256), (None, model.sha256));
    }

    #[test]
    fn a_device_that_is_not_usable_is_an_error_at_start_in_the_providers_words() {
        for (device, words) in OTHERS {
            if skipped(device) {
                continue;
            }
            let model = detector(device, false);
            let error = runtime().with_devices(&[model], 0.5).err().unwrap().to_string();
            for text in [device, words, "nanodet-g-416", "`inference.device`", "fallback = \"cpu\""]
            {
                assert!(error.contains(text), "{error:?} lacks {text:?}");
            }
        }
    }

    #[test]
    fn the_processor_takes_over_where_it_may_and_that_is_told() {
        for (device, words) in OTHERS {
            if skipped(device) {
                continue;
            }
            let model = detector(device, true);
            let runtime = runtime().with_devices(std::slice::from_ref(&model), 0.5).unwrap();
            assert!(!runtime.uses_devices());
            let loaded = load(&model, &runtime).unwrap();
            let reason = loaded.runs.fell_back.unwrap();
            assert!(reason.contains(words), "{reason}");
            assert!(
                loaded.runs.nodes.iter().all(|(provider, _)| provider == "CPUExecutionProvider")
            );
            assert_eq!(loaded.runs.nodes.len(), 1);
        }
    }

    #[test]
    fn a_device_that_no_model_was_on_at_start_is_refused_with_what_to_do() {
        let model = detector("cuda:3", false);
        let error = load(&model, &runtime()).err().unwrap();
        assert_eq!(error.code, ErrorCode::UnsupportedOperation);
        assert!(
            error.message.contains("cuda:3") && error.message.contains("restart"),
            "{}",
            error.message
        );
    }

    #[test]
    fn memory_of_a_device_that_is_not_there_is_an_error_not_a_guess() {
        // On a machine with a driver the number is beyond any that it has.
        let error = total_memory(9_999).unwrap_err().to_string();
        assert!(error.contains("libcuda.so.1"), "{error}");
    }
}
