//! Loads ONNX Runtime's shared library, after checking that it is one, and sets up its environment.

use std::error::Error as _;
use std::ffi::{CStr, c_char};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ocelli_protocol::digest::Digest;
use ocelli_protocol::inference::{Device, ErrorCode, LoadedModel, Model};
use ort::AsPointer;
use ort::environment::Environment;
use ort::ep::ExecutionProviderDispatch;
use ort::logging::LogLevel;
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use parking_lot::Mutex;

use crate::device::{self, DeviceError, Devices};
use crate::error::{EngineError, RequestError};

/// ONNX Runtime, loaded. A process has one environment, which clones share.
#[derive(Clone)]
pub(crate) struct Runtime {
    environment: Environment,
    version: String,
    devices: Arc<Devices>,
}

/// The one library of this process, once it is loaded. It is never unloaded.
static LOADED: Mutex<Option<(PathBuf, Runtime)>> = Mutex::new(None);

impl Runtime {
    /// Checks and loads the library at an absolute path.
    pub(crate) fn load(library: &Path, sha256: Option<&str>) -> Result<Self, EngineError> {
        if !library.is_absolute() {
            let message =
                format!("`inference.library` must be an absolute path, not {}", library.display());
            return Err(EngineError::Configuration(message));
        }
        let mut loaded = LOADED.lock();
        if let Some((path, runtime)) = &*loaded {
            if path != library {
                return Err(EngineError::OtherLibraryLoaded {
                    loaded: path.clone(),
                    asked: library.to_owned(),
                });
            }
            return Ok(runtime.clone());
        }
        verify(library, sha256)?;

        let version = version(library)?;
        let environment = ort::init_from(library)
            .map_err(|error| unusable(library, error.to_string()))?
            .with_name("ocelli")
            .with_telemetry(false)
            .build()?;
        // Below this level ONNX Runtime would format hundreds of unused lines per load.
        environment.set_log_level(LogLevel::Warning);
        share_arena(&environment)?;
        let runtime = Self { environment, version, devices: Arc::default() };
        *loaded = Some((library.to_owned(), runtime.clone()));
        Ok(runtime)
    }

    /// The library's version, like `1.28.0`.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// Tries the devices of these models. An error if a model has to run on an unusable one. Call
    /// it before the process is confined: providers open files.
    pub(crate) fn with_devices(
        self,
        models: &[Model],
        memory_fraction: f32,
    ) -> Result<Self, EngineError> {
        let devices = Devices::try_all(models, memory_fraction, |providers| {
            self.build(ONE_NODE, providers, GraphOptimizationLevel::All)
                .map(drop)
                .map_err(|error| provider_error(&error))
        });
        Ok(Self { devices: Arc::new(devices?), ..self })
    }

    /// Whether a device is in use, whose driver opens files and starts threads of its own.
    pub(crate) fn uses_devices(&self) -> bool {
        self.devices.any_usable()
    }

    /// A session of a model from its bytes, on the model's device, or on the processor where that
    /// is not usable and the model may fall back. Says what runs the nodes of its graph.
    pub(crate) fn session(
        &self,
        bytes: &[u8],
        model: &Model,
    ) -> Result<(Session, LoadedModel), RequestError> {
        let Model { name, path, device, .. } = model;
        let made = |session: Session, nodes, fell_back| {
            let (name, sha256) = (name.clone(), model.sha256.clone());
            (session, LoadedModel { name, sha256, nodes, fell_back })
        };
        let mut fell_back = None;
        if *device != Device::Cpu {
            match self.on_device(bytes, *device) {
                Ok((session, nodes)) => return Ok(made(session, nodes, None)),
                Err(reason) if model.fallback => {
                    tracing::warn!(model = name, %device, "the processor takes over: {reason}");
                    fell_back = Some(reason.to_string());
                }
                Err(reason) => {
                    let message = device::refusal(model, &reason);
                    return Err(RequestError::new(ErrorCode::UnsupportedOperation, message));
                }
            }
        }
        let unreadable = |error: ort::Error| {
            let message = format!("model \"{name}\": {path} cannot be loaded: {error}");
            RequestError::new(ErrorCode::InvalidEncoding, message)
        };
        let session =
            self.build(bytes, Vec::new(), GraphOptimizationLevel::All).map_err(unreadable)?;
        let nodes = nodes(&session);
        Ok(made(session, nodes, fell_back))
    }

    /// A session that really uses the device; the error is the reason why there is none.
    fn on_device(
        &self,
        bytes: &[u8],
        device: Device,
    ) -> Result<(Session, Vec<(String, u32)>), DeviceError> {
        let session = self
            .build(bytes, self.devices.providers(device)?, GraphOptimizationLevel::All)
            .map_err(|error| provider_error(&error))?;
        let nodes = nodes(&session);
        let provider = device::provider_name(device);
        if nodes.is_empty()
            || nodes.iter().any(|(name, _)| name != device::provider_name(Device::Cpu))
        {
            return Ok((session, nodes));
        }
        Err(DeviceError::Unused(provider))
    }

    /// A session for inspection, not to run: nothing is done that is not needed to know its inputs
    /// and outputs.
    pub(crate) fn inspected(&self, bytes: &[u8]) -> ort::Result<Session> {
        self.build(bytes, Vec::new(), GraphOptimizationLevel::Disable)
    }

    /// A session of one thread that never spins, with the shared arena.
    fn build(
        &self,
        model: &[u8],
        providers: Vec<ExecutionProviderDispatch>,
        level: GraphOptimizationLevel,
    ) -> ort::Result<Session> {
        let session = SessionBuilder::new(&self.environment)?
            .with_optimization_level(level)?
            .with_parallel_execution(false)?
            .with_intra_threads(1)?
            .with_inter_threads(1)?
            .with_intra_op_spinning(false)?
            .with_inter_op_spinning(false)?
            .with_env_allocators()?
            .with_config_entry("session.record_ep_graph_assignment_info", "1")?
            .with_config_entry("session.model_external_initializers_file_folder_path", NO_FOLDER)?
            .with_execution_providers(providers)?
            .commit_from_memory(model)?;
        return_freed_memory();
        Ok(session)
    }
}

/// The nodes of a session by execution provider. Empty if the library cannot report them, which
/// does not prevent a run.
fn nodes(session: &Session) -> Vec<(String, u32)> {
    device::nodes(session).unwrap_or_else(|error| {
        tracing::debug!("what runs each node is not known: {error}");
        Vec::new()
    })
}

/// A provider's error without the blanks and full stops at its end.
fn provider_error(error: &ort::Error) -> DeviceError {
    DeviceError::Provider(error.to_string().trim_end_matches([' ', '.', '\n']).to_owned())
}

/// The folder for weights outside of the model file: none, since this path is no folder. By default
/// a pipeline's own model could read files of the working directory.
const NO_FOLDER: &str = "/dev/null";

/// `y = Identity(x)`, both f32 with one side of 1: an `onnx.ModelProto` of `onnx/onnx.proto`, opset
/// 13.
const ONE_NODE: &[u8] = b"\x08\x08\x3a\x37\
    \x0a\x10\x0a\x01x\x12\x01y\x22\x08Identity\
    \x12\x01g\
    \x5a\x0f\x0a\x01x\x12\x0a\x0a\x08\x08\x01\x12\x04\x0a\x02\x08\x01\
    \x62\x0f\x0a\x01y\x12\x0a\x0a\x08\x08\x01\x12\x04\x0a\x02\x08\x01\
    \x42\x02\x10\x0d";

fn unusable(library: &Path, reason: impl Into<String>) -> EngineError {
    EngineError::LibraryUnusable { path: library.to_owned(), reason: reason.into() }
}

/// Checks all that would otherwise end in a crash: loading a truncated library kills the process.
fn verify(library: &Path, expected: Option<&str>) -> Result<(), EngineError> {
    let missing = |source| EngineError::LibraryMissing { path: library.to_owned(), source };
    let unusable = |reason| unusable(library, reason);
    let mut file = File::open(library).map_err(missing)?;
    let metadata = file.metadata().map_err(missing)?;
    if !metadata.is_file() {
        return Err(unusable("it is not a file"));
    }
    if metadata.len() == 0 {
        return Err(unusable("the file is empty"));
    }
    match elf_extent(&mut file) {
        Ok(Some(extent)) if extent <= metadata.len() => {}
        Ok(Some(_)) => return Err(unusable("the file is truncated")),
        Ok(None) => {
            return Err(unusable("it is not a shared library of this platform (64-bit ELF)"));
        }
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(unusable("the file is truncated"));
        }
        Err(error) => return Err(missing(error)),
    }
    if let Some(expected) = expected {
        let found =
            file.rewind().and_then(|()| Digest::of_reader(&file)).map_err(missing)?.to_string();
        if found != expected {
            let (path, expected) = (library.to_owned(), expected.to_owned());
            return Err(EngineError::LibraryDiffers { path, expected, found });
        }
    }
    Ok(())
}

/// The minimum length of an ELF file that holds all its mapped segments. `None` if it is no 64-bit
/// little-endian ELF. Offsets are those of `Elf64_Ehdr` and `Elf64_Phdr`.
fn elf_extent(file: &mut File) -> io::Result<Option<u64>> {
    const LOAD: [u8; 4] = [1, 0, 0, 0];
    let mut header = [0_u8; 64];
    let mut magic = [0_u8; 4];
    file.read_exact(&mut magic)?;
    if magic != *b"\x7fELF" {
        return Ok(None);
    }
    file.rewind()?;
    file.read_exact(&mut header)?;
    if header.get(4..6) != Some(&[2, 1]) {
        return Ok(None);
    }
    let table = number(&header, 32, 8);
    let (entry, count) = (number(&header, 54, 2), number(&header, 56, 2));
    let mut extent = table.saturating_add(entry * count);
    file.seek(SeekFrom::Start(table))?;
    // Both factors are 16-bit numbers: at most 4 GiB, and never beyond the file's end.
    let mut entries = Vec::new();
    file.take(entry * count).read_to_end(&mut entries)?;
    for segment in entries.chunks_exact(usize::try_from(entry).unwrap_or(0).max(1)) {
        if segment.get(..4) == Some(&LOAD) {
            extent = extent.max(number(segment, 8, 8).saturating_add(number(segment, 32, 8)));
        }
    }
    Ok(Some(extent))
}

/// A little-endian number of `length` bytes; bytes that are not there count as 0.
fn number(bytes: &[u8], offset: usize, length: usize) -> u64 {
    let digits = bytes.iter().skip(offset).take(length);
    digits.rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// The version that the library reports.
#[allow(unsafe_code)]
fn version(library: &Path) -> Result<String, EngineError> {
    // SAFETY: the file was checked as well as it can be; its initialisers are those of ONNX
    // Runtime, or of what the operator named instead of it.
    let handle = unsafe { libloading::Library::new(library) }.map_err(|error| {
        // The error proper says no more than that `dlopen` failed; its source says why.
        unusable(library, error.source().map_or_else(|| error.to_string(), ToString::to_string))
    })?;
    // SAFETY: this is the signature of the one symbol that every ONNX Runtime since 1.0 exports.
    let base = unsafe {
        handle.get::<unsafe extern "C" fn() -> *const ort_sys::OrtApiBase>(b"OrtGetApiBase")
    };
    let base = base.map_err(|_| unusable(library, "it does not export `OrtGetApiBase`"))?;
    // SAFETY: it takes nothing and returns a pointer to a static, or null; the version is a static
    // string.
    let text: Option<*const c_char> =
        unsafe { base().as_ref().map(|base| (base.GetVersionString)()) };
    let text = text
        .filter(|text| !text.is_null())
        .ok_or_else(|| unusable(library, "it tells no version"))?;
    // SAFETY: a static string that ends in 0; `handle` is alive.
    let version = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
    // The library is never unloaded: it cannot be, once it has started threads.
    std::mem::forget(handle);
    Ok(version)
}

/// Registers one arena for the CPU that all sessions allocate from, so that sessions of one model
/// share the memory of their activations.
#[allow(unsafe_code)]
fn share_arena(environment: &Environment) -> ort::Result<()> {
    let memory =
        MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Arena, MemoryType::Default)?;
    // SAFETY: the environment and the memory's description are alive for the call, and the library
    // copies the description. No arena settings means its own defaults. The status is taken over.
    unsafe {
        let environment = environment.ptr().cast_mut();
        let status =
            (ort::api().CreateAndRegisterAllocator)(environment, memory.ptr(), std::ptr::null());
        ort::Error::result_from_status(status)
    }
}

/// Returns memory freed by loading a model to the system: about 20 MB for a 7 MB model, which the
/// allocator would retain.
#[allow(unsafe_code)]
fn return_freed_memory() {
    // SAFETY: no precondition.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(name: &str, bytes: &[u8], sha256: Option<&str>) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let error = verify(&path, sha256).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
        assert!(error.contains("./x setup"), "{error}");
        error
    }

    #[test]
    fn a_missing_library_is_named_with_what_to_do() {
        let error =
            verify(Path::new("/nonexistent/libonnxruntime.so"), None).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/libonnxruntime.so"), "{error}");
        assert!(error.contains("./x setup") && error.contains("inference.library"), "{error}");
    }

    #[test]
    fn what_is_no_library_is_refused() {
        assert!(refused("empty.so", b"", None).contains("empty"));
        assert!(refused("text.so", &[b'x'; 100], None).contains("not a shared library"));
        assert!(refused("short.so", b"\x7fELF\x02\x01", None).contains("truncated"));
    }

    #[test]
    fn a_truncated_library_is_refused_before_it_is_loaded() {
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let whole = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(whole.path(), &program).unwrap();
        verify(whole.path(), None).unwrap();
        assert!(refused("half.so", &program[..4096], None).contains("truncated"));
    }

    #[test]
    fn a_library_with_another_digest_is_refused() {
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let error = refused("other.so", &program, Some("00ff"));
        assert!(
            error.contains("00ff") && error.contains(&Digest::of(&program).to_string()),
            "{error}"
        );
    }

    #[test]
    fn a_relative_path_is_refused() {
        let error = Runtime::load(Path::new("libonnxruntime.so"), None).err().unwrap();
        assert!(error.to_string().contains("absolute"), "{error}");
    }
}
