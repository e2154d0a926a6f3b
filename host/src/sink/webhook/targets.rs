//! The webhooks that the config has, as they come and go.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::WebhookSink;
use crate::config::{Config, WebhookConfig};
use crate::sink::{SinkName, SinkTask, Sinks};

/// The sinks of `[[webhooks]]`. They end when this is dropped.
pub(crate) struct Webhooks {
    _task: AbortOnDropHandle<()>,
}

/// A webhook that runs.
struct RunningWebhook {
    settings: watch::Sender<Option<WebhookConfig>>,
    _sink: SinkTask,
}

impl Webhooks {
    /// Starts them, and follows the config from then on.
    pub(crate) fn start(sinks: &Sinks, config: watch::Receiver<Arc<Config>>) -> Self {
        Self { _task: AbortOnDropHandle::new(tokio::spawn(follow(sinks.clone(), config))) }
    }
}

async fn follow(sinks: Sinks, mut config: watch::Receiver<Arc<Config>>) {
    let mut running = BTreeMap::<String, RunningWebhook>::new();
    loop {
        let wanted = Arc::clone(&config.borrow_and_update());
        let is_wanted = |name: &String| wanted.webhooks.iter().any(|hook| hook.name == *name);
        running.retain(|name, _| is_wanted(name));
        for hook in &wanted.webhooks {
            if let Some(known) = running.get(&hook.name) {
                known.settings.send_if_modified(|now| {
                    let differs = now.as_ref() != Some(hook);
                    *now = Some(hook.clone());
                    differs
                });
                continue;
            }
            let (settings, watched) = watch::channel(Some(hook.clone()));
            let name = SinkName::new(&hook.sink_id(), &format!("the webhook {}", hook.name));
            let sink = sinks.start(name, WebhookSink, watched);
            running.insert(hook.name.clone(), RunningWebhook { settings, _sink: sink });
        }
        if config.changed().await.is_err() {
            return;
        }
    }
}
