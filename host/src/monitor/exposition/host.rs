//! The families that are about the host as a whole.

use std::fmt;

use strum::VariantArray;

use super::family::Families;
use super::{Exposition, ProcessSample, SessionSample};
use crate::deploy::{Outcome, ReloadFigures};
use crate::event::SessionState;
use crate::inference::Duty;
use crate::journal::events::REDIS_SINK;
use crate::monitor::DiskSpace;
use crate::monitor::process::ProcessUsage;
use crate::session::DriftKind;
use crate::sink::SinkMetrics;

const DUTIES: [Duty; 3] = [Duty::Serving, Duty::Spare, Duty::Draining];

impl Exposition {
    pub(super) fn encode_host(&self, out: &mut Families<'_, '_>) -> fmt::Result {
        self.processes(out)?;
        self.inference(out)?;
        self.host(out)?;
        self.analysis(out)?;
        self.deployments(out)?;
        self.config(out)?;
        self.tokens(out)?;
        self.journal(out)?;
        self.redis(out)?;
        self.sinks(out)?;
        self.site(out)?;
        self.traces(out)
    }

    fn processes(&self, out: &mut Families<'_, '_>) -> fmt::Result {
        let version = [[("version", env!("CARGO_PKG_VERSION"))]];
        out.info("build", "The version of this host", version)?;
        out.counter("process_cpu_seconds", "CPU time")?
            .samples(self.programs.iter().map(|program| (program.labels(), program.cpu)))?;
        out.gauge("process_resident_memory_bytes", "Memory in use, shared memory included")?
            .samples(self.running(|now| Some(now.resident)))?;
        out.gauge("process_start_time_seconds", "When the process was started, since 1970")?
            .samples(self.running(ProcessUsage::started))?;
        out.gauge("process_threads", "Threads")?.samples(self.running(|now| Some(now.threads)))?;
        let host = |value: Option<u64>| value.map(|value| ([("process", "host")], value));
        let (open, limit) = self.descriptors.unzip();
        out.gauge("process_open_fds", "Open descriptors")?.samples(host(open))?;
        out.gauge("process_max_fds", "Descriptors that may be open")?.samples(host(limit))
    }

    /// A sample for each of the host's processes that is there and has this value.
    fn running<T>(
        &self,
        value: fn(&ProcessUsage) -> Option<T>,
    ) -> impl Iterator<Item = ([(&str, &str); 1], T)> {
        self.programs
            .iter()
            .filter_map(move |program| Some((program.labels(), value(program.now.as_ref()?)?)))
    }

    fn inference(&self, out: &mut Families<'_, '_>) -> fmt::Result {
        let status = &self.inference;
        out.gauge("inference_up", "Whether every session has what runs its models")?
            .value(u64::from(status.serves))?;
        let restarts = status.restarts.by_reason();
        out.counter("inference_restarts", "Inference processes that were replaced, by reason")?
            .samples(restarts.map(|(reason, count)| ([("reason", reason)], count)))?;
        let processes = DUTIES.map(|duty| {
            let count = status.processes.iter().filter(|process| process.duty == duty).count();
            ([("duty", duty.name())], count)
        });
        out.gauge("inference_processes", "Inference processes that are ready, by duty")?
            .samples(processes)?;
        let pids: Vec<String> =
            status.processes.iter().map(|process| process.pid.to_string()).collect();
        let memory = status.processes.iter().zip(&pids).map(|(process, pid)| {
            ([("pid", pid.as_str()), ("duty", process.duty.name())], process.memory)
        });
        out.gauge(
            "inference_private_memory_bytes",
            "Private memory that an inference process uses: what inference.memory_mb counts",
        )?
        .samples(memory)?;
        let spare = status.spare_ready.map(|ready| ([("", ""); 0], u64::from(ready)));
        out.gauge(
            "inference_spare_ready",
            "Whether an inference process stands by, where one is to",
        )?
        .samples(spare)?;
        out.counter(
            "inference_poison_requests",
            "Requests that were refused since they ended inference processes",
        )?
        .value(status.poison)?;
        let fallbacks = self.fallbacks.iter();
        out.gauge(
            "inference_model_fallback",
            "Whether a loaded model runs on the processor since its device is not usable",
        )?
        .samples(fallbacks.map(|(model, fell)| ([("model", model.as_str())], u64::from(*fell))))
    }

    fn host(&self, out: &mut Families<'_, '_>) -> fmt::Result {
        let states = SessionState::VARIANTS.iter().map(|state| {
            let here = |session: &&SessionSample| session.status().state == *state;
            ([("state", state.as_str())], self.sessions.iter().filter(here).count())
        });
        out.gauge("sessions", "Sessions by state")?.samples(states)?;
        out.gauge("sessions_limit", "Sessions that there may be")?.value(self.session_limit)?;
        out.gauge("subscribers", "Connected subscribers")?.value(self.hub.subscribers)?;
        out.counter(
            "subscribers_closed",
            "Subscribers that were closed because they did not read what they were told",
        )?
        .value(self.hub.closed)?;
        out.counter(
            "subscribers_fell_behind",
            "How often a subscriber was too slow for a session's events and went on from the \
             journal",
        )?
        .value(self.hub.fell_behind)?;
        out.counter(
            "detections_missed",
            "Messages with detections that subscribers were too slow for",
        )?
        .value(self.hub.missed)?;
        out.counter("log_lines_lost", "Log lines that could not be written")?
            .value(self.lost_lines)?;
        let rooms = |value: fn(&DiskSpace) -> u64| {
            self.rooms.iter().map(move |room| ([("folder", room.folder)], value(room)))
        };
        out.gauge("disk_free_bytes", "Room on the disk of a folder")?
            .samples(rooms(|room| room.free))?;
        out.gauge("disk_size_bytes", "Size of that disk, as far as the host may use it")?
            .samples(rooms(|room| room.size))
    }

    fn analysis(&self, out: &mut Families<'_, '_>) -> fmt::Result {
        let (figures, load) = (&self.analysis, self.analysis.load);
        out.counter("analyze_pictures", "Single pictures by what became of them")?
            .samples(figures.outcomes.iter().map(|(outcome, n)| ([("outcome", *outcome)], *n)))?;
        out.gauge("analyze_waiting", "Pictures that wait for a worker")?.value(load.waiting)?;
        let workers = [("starting", load.starting), ("idle", load.idle), ("busy", load.busy)];
        out.gauge("analyze_workers", "Workers for single pictures by what they do")?
            .samples(workers.map(|(state, count)| ([("state", state)], count)))?;
        out.gauge("analyze_workers_limit", "Workers for single pictures that there may be")?
            .value(figures.worker_limit)?;
        out.counter(
            "analyze_workers_lost",
            "Workers for single pictures that died or were killed",
        )?
        .value(figures.lost_workers)?;
        out.gauge("analyze_jobs", "Jobs by their state")?
            .samples(figures.jobs.iter().map(|(state, count)| ([("state", *state)], *count)))
    }

    fn deployments(&self, out: &mut Families<'_, '_>) -> fmt::Result {
        let figures = &self.deployments;
        let outcomes = Outcome::ALL.iter().map(|outcome| {
            let count = figures.outcomes.get(outcome).copied().unwrap_or_default();
            ([("outcome", outcome.name())], count)
        });
        out.counter("deployments", "Deployments by what became of them")?.samples(outcomes)?;
        out.gauge(
            "session_swap_gap_seconds",
            "Time between the last result of the version before and the first of the one that runs",
        )?
        .samples(self.some(|session| Some(figures.gap_ms.get(session.name())? / 1000.0)))
    }

    fn config(&self, out: &mut Families<'_, '_>) -> fmt::Result {
        let ReloadFigures { applied, refused, is_refused } = self.reloads;
        out.counter("config_reloads", "Edits of the config by what became of them")?.samples(
            [("applied", applied), ("refused", refused)]
                .map(|(outcome, count)| ([("outcome", outcome)], count)),
        )?;
        out.gauge("config_refused", "Whether the config's last edit is not in force")?
            .value(u64::from(is_refused))?;
        let kinds = DriftKind::ALL.iter().map(|kind| {
            let count = self.drifts.values().filter(|drift| *drift == kind).count();
            ([("kind", kind.name())], count)
        });
        out.gauge("config_drift", "Cameras that do not run as the config says, by kind")?
            .samples(kinds)?;
        let each = self.drifts.iter();
        let each = each
            .map(|(camera, kind)| ([("session", camera.as_str()), ("kind", kind.name())], 1_u64));
        out.gauge("session_drift", "1 for a camera that does not run as the config says")?
            .samples(each)
    }

    fn tokens(&self, out: &mut Families<'_, '_>) -> fmt::Result {
        let ends = self.token_ends.iter();
        out.gauge(
            "token_expiry_timestamp_seconds",
            "When a token of config or site ends, since 1970",
        )?
        .samples(ends.map(|(token, end)| ([("token", token.as_str())], *end)))
    }

    fn journal(&self, out: &mut Families<'_, '_>) -> fmt::Result {
        let figures = self.journal;
        out.counter("journal_events", "Events that were kept and told")?.value(figures.events)?;
        out.gauge("journal_waiting_events", "Events that wait for the disk")?
            .value(self.events_waiting)?;
        out.counter(
            "journal_events_lost",
            "Events lost because too many of their session waited for the disk",
        )?
        .value(figures.lost)?;
        out.counter(
            "journal_pictures_lost",
            "Pictures of events that were not kept, or went early, for want of room",
        )?
        .value(figures.pictures_lost)?;
        out.counter(
            "journal_commit_failures",
            "Times that events could not be written to the disk",
        )?
        .value(figures.failures)?;
        out.gauge("journal_bytes", "Size of the events' file")?.value(figures.bytes)?;
        out.gauge("attachments_bytes", "Size of the events' attachments")?
            .value(figures.attachment_bytes)?;
        let clips = figures.clips;
        let outcomes = [
            ("whole", clips.whole),
            ("cut", clips.cut),
            ("refused", clips.refused),
            ("failed", clips.failed),
        ];
        out.counter("clips", "Clips of events by what became of them")?
            .samples(outcomes.map(|(outcome, count)| ([("outcome", outcome)], count)))?;
        out.gauge("clips_bytes", "Size of the events' clips")?.value(clips.bytes)
    }

    fn sinks(&self, out: &mut Families<'_, '_>) -> fmt::Result {
        let each = |value: fn(&SinkMetrics) -> u64| {
            self.sinks.iter().map(move |(name, sink)| ([("sink", &**name)], value(sink)))
        };
        out.gauge("sink_up", "Whether a sink takes events")?.samples(each(|it| it.up.into()))?;
        out.gauge("sink_behind_events", "Events of the journal that a sink does not have yet")?
            .samples(each(|it| it.behind))?;
        out.counter("sink_events", "Events written to a sink")?.samples(each(|it| it.written))?;
        out.counter("sink_errors", "Times that a sink did not do what it was asked")?
            .samples(each(|it| it.errors))?;
        out.counter(
            "sink_gaps",
            "Times that the journal had deleted events before a sink had them",
        )?
        .samples(each(|it| it.gaps))?;
        out.counter("sink_refused_events", "Events left out since a sink will never take them")?
            .samples(each(|it| it.refused))
    }

    fn site(&self, out: &mut Families<'_, '_>) -> fmt::Result {
        let Some(site) = &self.site else { return Ok(()) };
        out.gauge(
            "site_member",
            "Whether the host is a member of its site: without, it runs none",
        )?
        .value(u64::from(site.member))?;
        out.gauge("site_streams_up", "Whether the site holds events")?
            .value(u64::from(site.streams))?;
        out.gauge("site_cameras", "Cameras that the host speaks for")?
            .value(site.cameras as u64)?;
        out.gauge("site_faulty_cameras", "Cameras of the host that it cannot run, or not yet")?
            .value(site.faulty as u64)?;
        out.counter("site_detections_dropped", "Detections that other hosts were not told")?
            .value(site.live_dropped)
    }

    fn traces(&self, out: &mut Families<'_, '_>) -> fmt::Result {
        let Some(figures) = &self.traces else { return Ok(()) };
        let spans = [("sent", figures.sent), ("dropped", figures.dropped)];
        out.counter("otlp_spans", "Spans of traces by what became of them")?
            .samples(spans.map(|(outcome, count)| ([("outcome", outcome)], count)))?;
        out.counter("otlp_errors", "Times that the collector did not take what it was sent")?
            .value(figures.errors)
    }

    /// What [`Self::sinks`] says of Redis, under names of its own.
    fn redis(&self, out: &mut Families<'_, '_>) -> fmt::Result {
        let Some(figures) = self.sinks.get(REDIS_SINK) else { return Ok(()) };
        out.gauge("redis_up", "Whether Redis takes events")?.value(u64::from(figures.up))?;
        out.gauge("redis_behind_events", "Events of the journal that Redis does not have yet")?
            .value(figures.behind)?;
        out.counter("redis_events", "Events written to Redis")?.value(figures.written)?;
        out.counter("redis_errors", "Times that Redis did not do what it was asked")?
            .value(figures.errors)?;
        out.counter(
            "redis_gaps",
            "Times that the journal had deleted events before Redis had them",
        )?
        .value(figures.gaps)
    }
}

impl ProcessSample {
    fn labels(&self) -> [(&str, &str); 1] {
        [("process", self.name)]
    }
}
