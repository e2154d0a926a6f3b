//! What a double of the host says of things that a test is not about.

mod client;

use std::io::Write;
use std::sync::{Arc, LazyLock};

use futures_util::future::BoxFuture;
use ocelli::analyze::{
    AnalysisError, AnalysisErrorKind, ImageWorker, ImageWorkerStartError, WorkerFactory,
};
use ocelli::config::Config;
use ocelli::config::source::{ReaderSetting, Source, SourceOptions, Transport};
use ocelli::journal::Journal;
use ocelli::source::{ReaderPrograms, Sources};
use ocelli_testkit::program;
use serde_json::{Map, Value};
use tokio::sync::watch;

pub(crate) use client::Client;

/// A journal of events that ends with the test.
pub(crate) fn events() -> ocelli::journal::events::EventJournal {
    Journal::temporary().unwrap().events().clone()
}

/// The programs that read sources.
pub(crate) fn readers() -> ReaderPrograms {
    ReaderPrograms { strict: program("ocelli-rtsp"), compatible: program("ocelli-ingest") }
}

/// Sources as a host has them, with the real programs.
pub(crate) fn sources() -> Sources {
    let journal = Journal::temporary().unwrap();
    Sources::new(readers(), journal, &Config::default())
}

/// An RTSP camera for the strict reader alone.
pub(crate) fn strict(url: &str, transport: Transport) -> Source {
    let (transport, reader) = (Some(transport), Some(ReaderSetting::Strict));
    let options = SourceOptions { transport, reader, ..SourceOptions::default() };
    Source::configured(url, options).unwrap()
}

/// A config that says nothing and never changes: without tokens.
pub(crate) fn defaults() -> tokio::sync::watch::Receiver<std::sync::Arc<ocelli::config::Config>> {
    tokio::sync::watch::channel(std::sync::Arc::default()).1
}

/// There are no pipelines for single pictures: `api_analyze.rs` has some.
pub(crate) struct NoPipelines;

impl WorkerFactory for NoPipelines {
    fn find(&self, pipeline: &str) -> Result<(), AnalysisError> {
        Err(AnalysisError::new(AnalysisErrorKind::UnknownPipeline, pipeline))
    }

    fn start(
        &self,
        pipeline: Arc<str>,
        _: Arc<Map<String, Value>>,
    ) -> BoxFuture<'static, Result<Box<dyn ImageWorker>, ImageWorkerStartError>> {
        Box::pin(async move {
            Err(ImageWorkerStartError {
                error: AnalysisError::new(AnalysisErrorKind::UnknownPipeline, &*pipeline),
                permanent: true,
            })
        })
    }
}

/// What is logged, by a test whose runtime has one thread.
#[derive(Clone, Default)]
pub(crate) struct Log(watch::Sender<Vec<u8>>);

impl Log {
    /// Down to this level. Ends when the guard is dropped.
    pub(crate) fn begin(level: tracing::Level) -> (Self, tracing::subscriber::DefaultGuard) {
        // While there is only one dispatcher, a line that another thread comes to first is decided
        // for all threads by that thread, which may have no log.
        static ANOTHER: LazyLock<tracing::Dispatch> =
            LazyLock::new(|| tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default()));
        LazyLock::force(&ANOTHER);
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.borrow().clone()).unwrap()
    }

    /// Waits until so many lines have these words.
    pub(crate) async fn says(&self, words: &str, lines: usize) {
        let said = |log: &Vec<u8>| String::from_utf8_lossy(log).matches(words).count() >= lines;
        self.0.subscribe().wait_for(said).await.unwrap();
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.send_modify(|log| log.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// There are no sessions and no models; `$field` holds the analyses.
macro_rules! no_sessions {
    ($double:ty, $field:tt) => {
        impl ocelli::api::Control for $double {
            type Status = serde_json::Value;
            type Models = serde_json::Value;

            fn models(&self) -> serde_json::Value {
                serde_json::Value::Null
            }

            fn sessions(&self) -> Vec<serde_json::Value> {
                Vec::new()
            }

            fn id(_: &serde_json::Value) -> &str {
                ""
            }

            fn session(&self, _: &str) -> Option<serde_json::Value> {
                None
            }

            async fn picture(
                &self,
                _: &str,
                _: ocelli_protocol::worker::PictureWish,
            ) -> Option<Result<ocelli::session::EncodedPicture, ocelli::session::PictureError>>
            {
                None
            }

            fn pictures(&self, _: &str) -> Option<ocelli::source::PictureFeed> {
                None
            }

            async fn ensure(
                &self,
                id: &str,
                _: &str,
                _: &str,
                _: serde_json::Map<String, serde_json::Value>,
            ) -> Result<(), ocelli::api::Refusal> {
                Err(ocelli::api::Refusal::unknown(id))
            }

            async fn ask(
                &self,
                id: &str,
                _: ocelli_protocol::worker::RequestKind,
                _: serde_json::Value,
            ) -> Result<serde_json::Value, ocelli::api::Refusal> {
                Err(ocelli::api::Refusal::unknown(id))
            }

            async fn restart(&self, id: &str) -> Result<(), ocelli::api::Refusal> {
                Err(ocelli::api::Refusal::unknown(id))
            }

            async fn stop(&self, id: &str) -> Result<(), ocelli::api::Refusal> {
                Err(ocelli::api::Refusal::unknown(id))
            }

            fn analyses(&self) -> &ocelli::analyze::Analyses {
                &self.$field
            }

            async fn metrics(&self) -> String {
                String::new()
            }
        }
    };
}

/// Nothing can be deployed.
macro_rules! no_deployments {
    ($double:ty) => {
        impl ocelli::api::DeploymentControl for $double {
            fn config(&self) -> ocelli::deploy::ConfigStatus {
                Default::default()
            }

            fn component_bytes(&self) -> usize {
                0
            }

            async fn deploy(
                &self,
                _: ocelli::deploy::DeployRequest,
            ) -> Result<ocelli::deploy::Record, ocelli::deploy::DeployError> {
                Err(ocelli::deploy::DeployError::Stopping)
            }

            async fn rollback(
                &self,
                _: &str,
                _: &str,
            ) -> Result<ocelli::deploy::Record, ocelli::deploy::DeployError> {
                Err(ocelli::deploy::DeployError::Stopping)
            }

            async fn deployments(
                &self,
                _: &str,
                _: usize,
            ) -> Result<Vec<ocelli::deploy::Record>, ocelli::deploy::DeployError> {
                Err(ocelli::deploy::DeployError::Stopping)
            }

            fn settings(&self, _: &str) -> Option<ocelli::session::SessionSettings> {
                Some(ocelli::session::SessionSettings {
                    pipeline: "eye".into(),
                    deployment: String::new(),
                    settings: serde_json::Map::new(),
                    schema: None,
                })
            }

            async fn pipelines(
                &self,
            ) -> Result<Vec<ocelli::deploy::NamedPipeline>, ocelli::deploy::DeployError> {
                Err(ocelli::deploy::DeployError::Stopping)
            }

            async fn described(
                &self,
                _: &str,
            ) -> Result<ocelli::deploy::DescribedPipeline, ocelli::deploy::DeployError> {
                Err(ocelli::deploy::DeployError::Stopping)
            }

            async fn put_pipeline(
                &self,
                _: &str,
                _: bytes::Bytes,
                _: &str,
            ) -> Result<ocelli::deploy::NamedPipeline, ocelli::deploy::DeployError> {
                Err(ocelli::deploy::DeployError::Stopping)
            }
        }
    };
}

/// There is no config file.
macro_rules! no_config {
    ($double:ty) => {
        impl ocelli::api::ConfigControl for $double {
            async fn camera_entry(
                &self,
                _: &str,
            ) -> Result<ocelli::config::edit::ConfigEntry, ocelli::config::edit::EditError> {
                Err(ocelli::config::edit::EditError::Stopping)
            }

            async fn edit_config(
                &self,
                _: ocelli::config::edit::ConfigEdit,
            ) -> Result<(), ocelli::config::edit::EditError> {
                Err(ocelli::config::edit::EditError::Stopping)
            }

            async fn reload_config(
                &self,
                _: &str,
            ) -> Result<ocelli::deploy::ReloadReport, ocelli::config::edit::EditError> {
                Err(ocelli::config::edit::EditError::Stopping)
            }
        }
    };
}

/// Nothing is measured.
macro_rules! no_insight {
    ($double:ty) => {
        impl ocelli::api::InsightControl for $double {
            type Stats = serde_json::Value;

            async fn stats(&self, _: &str) -> Option<serde_json::Value> {
                None
            }

            async fn system(&self) -> Option<ocelli::monitor::SystemStatus> {
                None
            }

            async fn backup(
                &self,
            ) -> Result<ocelli::journal::Backup, ocelli::journal::JournalError> {
                Err(ocelli::journal::JournalError::Ended)
            }

            fn source(&self, _: &str) -> Option<ocelli::config::source::Source> {
                None
            }

            fn admitted(
                &self,
                _: ocelli::config::source::Source,
            ) -> Result<ocelli::config::source::Source, ocelli::probe::ProbeError> {
                Err(ocelli::probe::ProbeError::NotAllowed)
            }

            async fn probe(
                &self,
                _: &ocelli::config::source::Source,
            ) -> Result<(ocelli::probe::ProbeReport, Option<Vec<u8>>), ocelli::probe::ProbeError>
            {
                Err(ocelli::probe::ProbeError::Busy)
            }

            async fn suggested_rate(&self, _: Option<f64>) -> Option<f64> {
                None
            }

            async fn log(
                &self,
                _: &str,
                _: Option<ocelli::telemetry::LogPosition>,
                _: usize,
            ) -> std::io::Result<ocelli::telemetry::LogPart> {
                Ok(ocelli::telemetry::LogPart::default())
            }
        }
    };
}
