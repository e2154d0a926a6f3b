//! What a program writes to its standard error, line by line as it comes.

use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

/// Lines shown of a failed test's host.
const TAIL: usize = 60;

/// A growing log. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    count: watch::Receiver<usize>,
}

impl Log {
    /// Reads on a thread of its own until the program closes the pipe.
    pub(crate) fn read(pipe: impl Read + Send + 'static) -> Self {
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let (sender, count) = watch::channel(0);
        let log = Self { lines: Arc::clone(&lines), count };
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                let mut lines = lines.lock();
                lines.push(line);
                let _ = sender.send(lines.len());
            }
        });
        log
    }

    /// The first line, past or to come, for which `find` has an answer. None where the program
    /// closed the pipe first.
    pub async fn find<T>(&self, find: impl Fn(&str) -> Option<T>) -> Option<T> {
        let mut count = self.count.clone();
        let mut seen = 0;
        loop {
            let there = *count.borrow_and_update();
            let lines = self.lines.lock()[seen..there].to_vec();
            if let Some(found) = lines.iter().find_map(|line| find(line)) {
                return Some(found);
            }
            seen = there;
            count.changed().await.ok()?;
        }
    }

    /// Returns when the program has closed the pipe.
    pub async fn end(&self) {
        let _ = self.find(|_| None::<()>).await;
    }

    /// All of it.
    pub fn text(&self) -> String {
        self.lines.lock().join("\n")
    }

    /// The last lines.
    pub fn tail(&self) -> String {
        let lines = self.lines.lock();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }
}
