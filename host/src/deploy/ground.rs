//! The host as deployments need it.

use std::sync::Arc;

use super::admit::{Admission, Room};
use super::compile::{CompileError, Compiler, Prepared, Source};
use super::flow::Ground;
use crate::event::{Event, Hub};
use crate::session::change::Swap;
use crate::session::{SessionError, Sessions, Spec};

/// Sessions, subscribers, and the compiler.
pub(super) struct Host {
    pub(super) sessions: Sessions,
    pub(super) hub: Hub,
    pub(super) compiler: Compiler,
    pub(super) room: Room,
}

impl Ground for Host {
    fn spec(&self, session: &str) -> Option<Arc<Spec>> {
        self.sessions.spec(session)
    }

    async fn prepare(&self, pipeline: &str, source: Source) -> Result<Prepared, CompileError> {
        self.compiler.prepare(pipeline, source).await
    }

    async fn admit(&self, session: &str, reserve: u64) -> Result<Admission, String> {
        let running = self.sessions.status(session).and_then(|status| status.pid);
        let room = self.room.clone();
        let asked = tokio::task::spawn_blocking(move || room.ask(running, reserve)).await;
        asked.unwrap_or_else(|error| Err(error.to_string()))
    }

    async fn swap(&self, swap: Swap) -> Result<(), SessionError> {
        self.sessions.swap(swap).await
    }

    fn publish(&self, session: &str, event: &Event) {
        // A session that has ended meanwhile has nobody to be told.
        let _ = self.hub.publish_event_if_alive(session, event.clone());
    }
}
