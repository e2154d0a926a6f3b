use super::*;

/// Limits that no test runs into by accident.
pub(crate) fn limits() -> WorkerLimits {
    WorkerLimits {
        memory: 1 << 30,
        open_files: 64,
        guest_memory: 16 << 20,
        call_cpu_ms: 60_000,
        call_timeout_ms: 120_000,
        host_call_ms: 120_000,
        inference_timeout_ms: 60_000,
        events_per_frame: 100,
        event_bytes: 256 << 10,
        attachments_per_frame: 16,
        log_lines_per_second: 1000,
        image_pixels: 1 << 20,
        store_bytes: 1 << 20,
        store_keys: 1000,
    }
}

impl InstanceState {
    /// The handles, to push what a component would be given.
    pub(crate) fn table_mut(&mut self) -> &mut ResourceTable {
        &mut self.table
    }
}
