//! The DevTools protocol: JSON messages over a pair of pipes, each ended by a zero byte.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::ChildStdin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::DEADLINE;

/// What the browser says of a window that is no answer: its faults.
type Faults = Arc<Mutex<Vec<String>>>;

/// A connection to a browser. Clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct DevTools {
    to_browser: Arc<Mutex<ChildStdin>>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    last: AtomicU64,
    /// None once the browser has closed its pipe.
    waiting: Mutex<Option<HashMap<u64, oneshot::Sender<Value>>>>,
    faults: Mutex<HashMap<String, Faults>>,
}

impl DevTools {
    /// Speaks over these pipes. A thread reads until the browser closes its own.
    pub(super) fn over(to_browser: ChildStdin, from_browser: impl Read + Send + 'static) -> Self {
        let shared = Arc::new(Shared::default());
        *shared.waiting.lock() = Some(HashMap::new());
        let reader = Arc::clone(&shared);
        std::thread::spawn(move || {
            let messages = BufReader::new(from_browser).split(0).map_while(Result::ok);
            messages.for_each(|message| reader.take(&message));
            // Who waits for an answer hears that none comes.
            *reader.waiting.lock() = None;
        });
        Self { to_browser: Arc::new(Mutex::new(to_browser)), shared }
    }

    /// Calls a method of a window, or of the browser where `session` is empty. The error is in the
    /// browser's words.
    pub(super) async fn call(
        &self,
        session: &str,
        method: &str,
        parameters: Value,
    ) -> Result<Value, String> {
        let id = self.shared.last.fetch_add(1, Ordering::SeqCst);
        let mut message = json!({"id": id, "method": method, "params": parameters});
        if !session.is_empty() {
            message["sessionId"] = json!(session);
        }
        let (sender, answer) = oneshot::channel();
        match self.shared.waiting.lock().as_mut() {
            Some(waiting) => waiting.insert(id, sender),
            None => return Err(format!("{method}: the browser has ended")),
        };
        let written =
            self.to_browser.lock().write_all(&[message.to_string().as_bytes(), b"\0"].concat());
        written.map_err(|error| format!("{method}: {error}"))?;
        let mut answer = match timeout(DEADLINE, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => return Err(format!("{method}: the browser has ended")),
            Err(_) => return Err(format!("{method}: no answer in time")),
        };
        match answer["error"].take() {
            Value::Null => Ok(answer["result"].take()),
            error => Err(format!("{method}: {}", error["message"].as_str().unwrap_or_default())),
        }
    }

    /// What goes wrong in a window from now on: exceptions that nobody caught, what the page logs
    /// as errors, and what the browser refused it.
    pub(super) fn faults(&self, session: &str) -> Faults {
        Arc::clone(self.shared.faults.lock().entry(session.to_owned()).or_default())
    }
}

impl Shared {
    fn take(&self, message: &[u8]) {
        let Ok(message) = serde_json::from_slice::<Value>(message) else { return };
        if let Some(id) = message["id"].as_u64() {
            let waiting = self.waiting.lock().as_mut().and_then(|waiting| waiting.remove(&id));
            // Who asked may have given up.
            let _ = waiting.map(|waiting| waiting.send(message));
        } else if let Some(fault) = fault(&message) {
            let session = message["sessionId"].as_str().unwrap_or_default();
            if let Some(faults) = self.faults.lock().get(session) {
                faults.lock().push(fault);
            }
        }
    }
}

/// The fault that a message tells of, if it tells of one.
fn fault(event: &Value) -> Option<String> {
    let about = &event["params"];
    match event["method"].as_str()? {
        "Runtime.exceptionThrown" => Some(exception(&about["exceptionDetails"])),
        "Runtime.consoleAPICalled" if about["type"] == "error" => {
            Some(format!("the page logs {}", about["args"]))
        }
        "Log.entryAdded" if about["entry"]["level"] == "error" => {
            let entry = &about["entry"];
            Some(format!("{} {}", entry["text"], entry["url"]))
        }
        "Inspector.targetCrashed" => Some("the page's process has ended".to_owned()),
        _ => None,
    }
}

/// An exception in its own words.
pub(super) fn exception(details: &Value) -> String {
    let description = details["exception"]["description"].as_str();
    description.or(details["text"].as_str()).unwrap_or("an exception").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_refusals_and_logged_errors_are_faults_and_nothing_else_is() {
        let thrown = json!({"method": "Runtime.exceptionThrown", "params": {"exceptionDetails":
            {"text": "Uncaught", "exception": {"description": "TypeError: x is null"}}}});
        assert_eq!(fault(&thrown).unwrap(), "TypeError: x is null");
        let refused = json!({"method": "Log.entryAdded", "params": {"entry":
            {"level": "error", "text": "Refused to load", "url": "http://a/b"}}});
        assert_eq!(fault(&refused).unwrap(), r#""Refused to load" "http://a/b""#);
        let logged = json!({"method": "Runtime.consoleAPICalled",
            "params": {"type": "error", "args": [{"value": "no"}]}});
        assert!(fault(&logged).unwrap().contains("no"));
        let said = json!({"method": "Runtime.consoleAPICalled", "params": {"type": "log"}});
        assert_eq!((fault(&said), fault(&json!({"method": "Page.loaded"}))), (None, None));
    }
}
