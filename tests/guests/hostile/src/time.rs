//! Calls that do not come back.

use std::hint::black_box;
use std::time::Duration;

/// Longer than any test.
const DAYS: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Shorter than any call to the host may take.
const NAP: Duration = Duration::from_millis(100);

/// Uses the processor and never returns.
pub(crate) fn run_for_ever() {
    let mut number = 1u64;
    loop {
        number = black_box(number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        if black_box(false) {
            return;
        }
    }
}

/// Waits in the host's `poll`, using no processor.
pub(crate) fn sleep() {
    std::thread::sleep(DAYS);
}

/// Waits a little at a time, so that no single call to the host is long.
pub(crate) fn nap_for_ever() {
    while !black_box(false) {
        std::thread::sleep(NAP);
    }
}
