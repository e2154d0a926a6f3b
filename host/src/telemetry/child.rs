//! What a child process writes to its standard error: nothing, unless something went badly wrong.

use std::fmt;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::ChildStderr;

/// Bytes of a line that are logged.
const MAX_LINE: usize = 2 << 10;

/// Lines that are logged in a second: a panic with its backtrace, and the allocator's last words.
const MAX_LINES: u32 = 200;

/// Hands each line to `log`, up to the end.
pub(crate) async fn child_lines(stderr: ChildStderr, log: impl Fn(fmt::Arguments<'_>)) {
    let mut lines = BufReader::new(stderr);
    let mut line = Vec::new();
    let (mut second, mut logged, mut left_out) = (Instant::now(), 0, 0_u64);
    loop {
        line.clear();
        // A read costs one unit of the task's budget for hundreds of short lines, so a flood would
        // hold a thread of the host.
        tokio::task::coop::consume_budget().await;
        if second.elapsed() >= Duration::from_secs(1) {
            if left_out > 0 {
                log(format_args!("{left_out} lines of standard error are left out"));
            }
            (second, logged, left_out) = (Instant::now(), 0, 0);
        }
        // A line longer than the bound is logged in pieces.
        match (&mut lines).take(MAX_LINE as u64).read_until(b'\n', &mut line).await {
            Ok(1..) if logged >= MAX_LINES => left_out += 1,
            Ok(1..) => {
                logged += 1;
                let text = String::from_utf8_lossy(&line);
                log(format_args!("{}", text.trim_end()));
            }
            _ => return,
        }
    }
}
