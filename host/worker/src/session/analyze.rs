//! Single pictures: one at a time, each with an instance of the component that has seen nothing
//! before it. The next instance is made and initialised as soon as an answer is sent, so that a
//! waiting worker is ready.

use std::os::unix::net::UnixStream;
use std::sync::Arc;

use ocelli_protocol::clock::{monotonic_ns, wall_ns};
use ocelli_protocol::limit::truncate_line;
use ocelli_protocol::wire::{Reader, WireError};
use ocelli_protocol::worker::{
    AnalysisFault, CaptureClock, FrameResult, FromWorker, LogLevel, Start, ToWorker, WorkerStage,
};
use ocelli_settings::{Schema, SettingsFault};

use super::described::DescribedPipeline;
use super::failure::WorkerFailure;
use crate::counters::SharedCounters;
use crate::guest::instance::{CallError, Instance, InstanceFactory};
use crate::host_link::HostLink;
use crate::video::{Frame, StillError, still};

/// Why a picture was not analysed, with a text for a person.
type AnalysisError = (AnalysisFault, String);

/// See the module's documentation.
pub(super) struct ImageWorker {
    factory: InstanceFactory,
    /// Initialised with `settings`, and not used yet.
    ready: Option<Instance>,
    settings: String,
    /// Why the settings do not fit the pipeline's schema, if so.
    settings_error: Option<String>,
    schema: Schema,
    max_pixels: u32,
    host: HostLink,
    counters: Arc<SharedCounters>,
}

impl ImageWorker {
    /// Initialises the first instance. The worker's settings need not fit the schema: a picture may
    /// bring others.
    pub(super) fn new(
        described: DescribedPipeline,
        start: &Start,
        host: &HostLink,
        counters: &Arc<SharedCounters>,
    ) -> Result<Self, WorkerFailure> {
        let DescribedPipeline { factory, instance, schema, fields } = described;
        let unusable =
            |fault: SettingsFault| WorkerFailure::new(WorkerStage::Settings, fault.to_string());
        let schema = Schema::read(&schema).map_err(unusable)?;
        let settings_error = match schema.check(&fields) {
            Ok(()) => None,
            Err(fault @ SettingsFault::Settings(_)) => Some(fault.to_string()),
            Err(fault @ SettingsFault::Schema(_)) => return Err(unusable(fault)),
        };
        let mut worker = Self {
            factory,
            ready: None,
            settings: start.settings.clone(),
            settings_error,
            schema,
            max_pixels: start.limits.image_pixels,
            host: host.clone(),
            counters: Arc::clone(counters),
        };
        worker.ready = worker.initialised(instance)?;
        Ok(worker)
    }

    /// Analyses pictures until the host closes the connection. A picture or its settings that bring
    /// the pipeline down cost that picture. A pipeline that no longer starts with the worker's
    /// settings is an error.
    pub(super) fn serve(mut self, mut reader: Reader<UnixStream>) -> Result<(), WorkerFailure> {
        loop {
            let (message, file) = match reader.read::<ToWorker>() {
                Ok(read) => read,
                Err(WireError::Closed) => return Ok(()),
                Err(error) => return Err(WorkerFailure::at(WorkerStage::Setup)(error)),
            };
            let ToWorker::Analyze { id, settings } = message else {
                let text = "a worker for single pictures takes nothing else";
                return Err(WorkerFailure::new(WorkerStage::Setup, text));
            };
            let outcome = self
                .analyze(file, settings)
                .map_err(|(fault, message)| (fault, truncate_line(&message).to_owned()));
            self.host.send(&FromWorker::Analyzed {
                id,
                outcome,
                counters: self.counters.snapshot(),
            });
            self.make_ready()?;
        }
    }

    fn analyze(
        &mut self,
        file: &[u8],
        settings: Option<String>,
    ) -> Result<FrameResult, AnalysisError> {
        let received_ns = monotonic_ns();
        let decoded = still(file, self.max_pixels);
        self.counters.update(|counters| {
            counters.received += 1;
            counters.decoded += u64::from(decoded.is_ok());
            counters.skipped_corrupt += u64::from(decoded.is_err());
        });
        let picture = decoded.map_err(|error| {
            let fault = match &error {
                StillError::Unsupported(_) => AnalysisFault::UnsupportedImage,
                StillError::Damaged(_) => AnalysisFault::DamagedImage,
                StillError::TooLarge(_) => AnalysisFault::ImageTooLarge,
            };
            (fault, error.to_string())
        })?;
        let decoded_ns = monotonic_ns();
        let mut instance = self.instance(settings)?;
        let frame = Frame {
            number: 0,
            presentation_ns: 0,
            shown_ns: 0,
            capture_ns: wall_ns(),
            capture_clock: CaptureClock::Host,
            received_ns,
            decoded_ns,
            picture,
        };
        let processed = instance.process(Arc::new(frame));
        self.counters.update(|counters| counters.processed += 1);
        processed.map_err(|error| analysis_error(AnalysisFault::PipelineFailed, error))
    }

    /// An instance for one picture.
    fn instance(&mut self, settings: Option<String>) -> Result<Instance, AnalysisError> {
        let settings = match settings.filter(|settings| *settings != self.settings) {
            // Two instances at a time would need twice the memory.
            Some(settings) => {
                self.ready = None;
                settings
            }
            None => match self.ready.take() {
                Some(instance) => return Ok(instance),
                None => self.settings.clone(),
            },
        };
        let fields = serde_json::from_str(&settings).map_err(|error| {
            (AnalysisFault::InvalidSettings, format!("the settings are no JSON object: {error}"))
        })?;
        self.schema
            .check(&fields)
            .map_err(|fault| (AnalysisFault::InvalidSettings, fault.to_string()))?;
        let initialised = self.factory.instance(fields).and_then(|mut instance| {
            instance.init(&settings)?;
            Ok(instance)
        });
        initialised.map_err(|error| analysis_error(AnalysisFault::InvalidSettings, error))
    }

    /// Makes an instance ready for the next picture if none is.
    fn make_ready(&mut self) -> Result<(), WorkerFailure> {
        if self.ready.is_some() || self.settings_error.is_some() {
            return Ok(());
        }
        let fields =
            serde_json::from_str(&self.settings).map_err(WorkerFailure::at(WorkerStage::Setup))?;
        let instance = self.factory.instance(fields);
        let instance = instance.map_err(WorkerFailure::of_call(WorkerStage::Instantiate))?;
        self.ready = self.initialised(instance)?;
        Ok(())
    }

    /// Initialises an instance with the worker's settings. One that refuses them, because it lacks
    /// a model say, is dropped: the next picture may bring settings of its own. A trap ends the
    /// worker.
    fn initialised(&self, mut instance: Instance) -> Result<Option<Instance>, WorkerFailure> {
        let initialised = match &self.settings_error {
            Some(message) => Err(CallError::Refused(message.clone())),
            None => instance.init(&self.settings),
        };
        match initialised {
            Ok(()) => Ok(Some(instance)),
            Err(CallError::Refused(message)) => {
                let text = format!("the pipeline is not ready: {message}");
                self.host.log(LogLevel::Warn, "worker", &text, None);
                Ok(None)
            }
            Err(trap) => Err(WorkerFailure::of_call(WorkerStage::Init)(trap)),
        }
    }
}

/// The analysis error that a pipeline's error is; `refused` is the fault for an error that it
/// returned.
fn analysis_error(refused: AnalysisFault, error: CallError) -> AnalysisError {
    match error {
        CallError::Refused(message) => (refused, message),
        CallError::Trap { limit, message } => (AnalysisFault::PipelineTrapped(limit), message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::Arena;
    use crate::guest::state::HostServices;
    use crate::guest::state::tests::limits;
    use crate::guest::tests::components::{Guest, IDLE, RESULT, test_engine};
    use crate::redis_bridge::RedisBucket;
    use ocelli_protocol::inference::packet_pair;
    use ocelli_protocol::limit::Limit;
    use ocelli_protocol::shm::SharedMemory;
    use ocelli_protocol::wire::write;
    use ocelli_protocol::worker::{Counters, Decode, WorkerLimits, WorkerMode};
    use std::net::Shutdown;
    use std::os::fd::OwnedFd;

    type Outcome = Result<FrameResult, AnalysisError>;

    /// The host of a worker for single pictures.
    struct Host {
        to: UnixStream,
        from: Reader<UnixStream>,
        _inference: OwnedFd,
        worker: std::thread::JoinHandle<Result<(), String>>,
    }

    /// A worker with this pipeline.
    fn worker(guest: &Guest<'_>, limits: WorkerLimits) -> Host {
        let engine = test_engine();
        let component = guest.compiled(&engine);
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (socket, inference) = packet_pair().unwrap();
        let arena = Arena::new(SharedMemory::create(64 << 10).unwrap());
        let from = Reader::new(ours.try_clone().unwrap());
        let worker = std::thread::spawn(move || {
            let counters = Arc::new(SharedCounters::default());
            let host = HostLink::from_stream(theirs.try_clone().unwrap());
            let services = HostServices::new(
                host.clone(),
                arena,
                socket,
                RedisBucket::default(),
                limits,
                Arc::clone(&counters),
            );
            let factory = InstanceFactory::new(&engine, &component, services).unwrap();
            let start = Start {
                session: "pictures".into(),
                settings: "{}".into(),
                mode: WorkerMode::Analyze,
                decode: Decode::All,
                limits,
                heartbeat_ms: 1000,
                standby: false,
                redis_granted: false,
                annotate: false,
            };
            let described = DescribedPipeline::new(factory, serde_json::Map::new(), &host);
            let worker = described
                .and_then(|described| ImageWorker::new(described, &start, &host, &counters));
            worker
                .and_then(|worker| worker.serve(Reader::new(theirs)))
                .map_err(|failure| failure.message)
        });
        Host { to: ours, from, _inference: inference, worker }
    }

    impl Host {
        fn ask(&mut self, file: &[u8], settings: Option<&str>) -> (Outcome, Counters) {
            let id = 7;
            let settings = settings.map(str::to_owned);
            write(&mut self.to, &ToWorker::Analyze { id, settings }, file).unwrap();
            loop {
                match self.from.read::<FromWorker>().unwrap().0 {
                    FromWorker::Analyzed { id: 7, outcome, counters } => {
                        return (outcome, counters);
                    }
                    FromWorker::Log { .. } | FromWorker::Described(_) => {}
                    other => panic!("{other:?}"),
                }
            }
        }

        fn fault(&mut self, file: &[u8], settings: Option<&str>) -> AnalysisFault {
            self.ask(file, settings).0.unwrap_err().0
        }

        /// Leaves the worker, and gives why it ended, where that was a fault of its own.
        fn leave(mut self) -> Result<(), String> {
            self.to.shutdown(Shutdown::Write).unwrap();
            // A socket that is closed before all is read tells the other side of an error.
            while self.from.read::<FromWorker>().is_ok() {}
            self.worker.join().unwrap()
        }
    }

    fn picture() -> Vec<u8> {
        let mut file = Vec::new();
        let encoder = jpeg_encoder::Encoder::new(&mut file, 90);
        encoder.encode(&[200; 24 * 16 * 3], 24, 16, jpeg_encoder::ColorType::Rgb).unwrap();
        file
    }

    #[test]
    fn a_picture_is_frame_0_of_an_instance_of_its_own() {
        let once = Guest {
            items: "(global $used (mut i32) (i32.const 0))",
            process: "(if (global.get $used) (then unreachable)) (global.set $used (i32.const 1))",
            ..IDLE
        };
        let mut host = worker(&once, limits());
        for number in 1..=3 {
            let (outcome, counters) = host.ask(&picture(), None);
            let result = outcome.unwrap();
            assert_eq!((result.frame, result.width, result.height), (0, 24, 16));
            let stations = result.timestamps;
            assert!(
                stations.received <= stations.decoded && stations.decoded <= stations.submitted
            );
            assert_eq!(
                (counters.received, counters.decoded, counters.processed),
                (number, number, number)
            );
        }
        assert_eq!(host.leave(), Ok(()));
    }

    #[test]
    fn files_that_are_no_pictures_are_named_and_cost_nothing() {
        let limits = WorkerLimits { image_pixels: 24 * 16, ..limits() };
        let mut host = worker(&IDLE, limits);
        assert_eq!(host.fault(b"", None), AnalysisFault::UnsupportedImage);
        assert_eq!(host.fault(b"no picture", None), AnalysisFault::UnsupportedImage);
        let mut file = picture();
        file.truncate(file.len() - 30);
        assert_eq!(host.fault(&file, None), AnalysisFault::DamagedImage);
        let mut large = Vec::new();
        let encoder = jpeg_encoder::Encoder::new(&mut large, 90);
        encoder.encode(&[0; 25 * 16 * 3], 25, 16, jpeg_encoder::ColorType::Rgb).unwrap();
        assert_eq!(host.fault(&large, None), AnalysisFault::ImageTooLarge);
        let (outcome, counters) = host.ask(&picture(), None);
        assert!(outcome.is_ok());
        assert_eq!((counters.received, counters.skipped_corrupt, counters.processed), (5, 4, 1));
    }

    #[test]
    fn a_trap_costs_its_picture_and_no_other() {
        let limits = WorkerLimits { call_cpu_ms: 100, ..limits() };
        for (process, limit) in
            [("unreachable", None), ("(loop $ever (br $ever))", Some(Limit::CpuTime))]
        {
            let mut host = worker(&Guest { process, ..IDLE }, limits);
            for _ in 0..2 {
                assert_eq!(host.fault(&picture(), None), AnalysisFault::PipelineTrapped(limit));
            }
            assert_eq!(host.leave(), Ok(()), "the process has gone on");
        }
    }

    #[test]
    fn what_the_pipeline_says_against_a_picture_is_its_own_fault() {
        let refuse = format!("(i32.store8 (i32.const {RESULT}) (i32.const 1))");
        let mut host = worker(&Guest { process: &refuse, ..IDLE }, limits());
        assert_eq!(host.fault(&picture(), None), AnalysisFault::PipelineFailed);
        assert_eq!(host.fault(&picture(), None), AnalysisFault::PipelineFailed);
    }

    #[test]
    fn settings_of_its_own_are_for_one_picture() {
        // Longer settings than {} are refused, and much longer ones are more than the pipeline can
        // bear.
        let init = format!(
            "(if (i32.gt_u (local.get 1) (i32.const 20)) (then unreachable))
             (if (i32.gt_u (local.get 1) (i32.const 10)) (then (i32.store8 (i32.const {RESULT}) \
             (i32.const 1))))"
        );
        let mut host = worker(&Guest { init: &init, ..IDLE }, limits());
        assert!(host.ask(&picture(), Some("{\"a\":1}")).0.is_ok());
        assert_eq!(host.fault(&picture(), Some("{\"a\":10000}")), AnalysisFault::InvalidSettings);
        assert_eq!(host.fault(&picture(), Some("[1]")), AnalysisFault::InvalidSettings);
        let trapped = host.fault(&picture(), Some("{\"a\":\"a word that is too long\"}"));
        assert_eq!(trapped, AnalysisFault::PipelineTrapped(None));
        assert!(host.ask(&picture(), None).0.is_ok());
        assert_eq!(host.leave(), Ok(()));
    }

    #[test]
    fn a_pipeline_that_wants_settings_gets_those_of_the_picture() {
        // Settings as short as {} are refused.
        let init = format!(
            "(if (i32.lt_u (local.get 1) (i32.const 5)) (then (i32.store8 (i32.const {RESULT}) \
                (i32.const 1))))"
        );
        let mut host = worker(&Guest { init: &init, ..IDLE }, limits());
        assert_eq!(host.fault(&picture(), None), AnalysisFault::InvalidSettings);
        assert!(host.ask(&picture(), Some("{\"a\":1}")).0.is_ok());
        assert_eq!(host.leave(), Ok(()));
    }

    #[test]
    fn settings_that_do_not_fit_the_schema_cost_their_picture() {
        let schema = br#"{"required":["a"]}"#;
        let text: String = schema.iter().map(|byte| format!("\\{byte:02x}")).collect();
        let (place, length) = (RESULT + 24, RESULT + 28);
        let describe = format!(
            "(i32.store (i32.const {place}) (i32.const 2048)) (i32.store (i32.const {length}) \
                (i32.const {}))",
            schema.len()
        );
        let items = format!("(data (i32.const 2048) \"{text}\")");
        let guest = Guest { items: &items, describe: &describe, ..IDLE };
        let mut host = worker(&guest, limits());
        let (fault, words) = host.ask(&picture(), None).0.unwrap_err();
        assert_eq!(fault, AnalysisFault::InvalidSettings);
        assert!(words.contains("settings.a: is missing"), "{words}");
        assert!(host.ask(&picture(), Some("{\"a\":1}")).0.is_ok());
        assert_eq!(host.fault(&picture(), Some("{\"b\":1}")), AnalysisFault::InvalidSettings);
        assert_eq!(host.leave(), Ok(()));
    }

    #[test]
    fn nothing_but_pictures_is_taken() {
        let mut host = worker(&IDLE, limits());
        write(&mut host.to, &ToWorker::Snapshot, &[]).unwrap();
        assert!(host.leave().unwrap_err().contains("single pictures"));
    }
}
