//! The product's inference process, which does harm where a request asks for it: what its host is
//! tested against. It takes the place of `ocelli-inference`.
//!
//! An input that begins with [`MAGIC`] is marked, and the number after it says what happens right
//! before the model runs, on the thread that runs it, as if native code did it. The pipeline
//! `marked` of the tests makes such inputs.

#![allow(unsafe_code, reason = "native code that goes wrong is what this program is for")]

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Duration;

use ocelli_inference::RunInfo;

/// What a marked input begins with.
const MAGIC: f32 = 7_654_321.0;

/// As long as a run that is longer than most.
const LONG: Duration = Duration::from_millis(20);

/// What leaks at once.
const LEAK: usize = 3 << 20;

/// Memory is exhausted in steps of so many bytes, and at the latest here: a machine is not to be
/// filled where no limit is set.
const STEP: usize = 16 << 20;
const MOST_MEMORY: usize = 2 << 30;

fn main() -> ExitCode {
    ocelli_inference::process::main(Some(misbehave))
}

fn misbehave(run: &RunInfo<'_>) {
    let input = run.input(0).unwrap_or_default();
    let mut numbers =
        input.chunks_exact(4).filter_map(|bytes| Some(f32::from_le_bytes(bytes.try_into().ok()?)));
    if numbers.next() != Some(MAGIC) {
        return;
    }
    match numbers.next().unwrap_or_default() as u8 {
        1 => {
            eprintln!("a fault of the tests: abort");
            std::process::abort();
        }
        2 => {
            eprintln!("a fault of the tests: null is written to");
            // SAFETY: none. The kernel ends the process.
            unsafe { black_box(std::ptr::null_mut::<u8>()).write_volatile(1) };
        }
        3 => free_twice(),
        // Deaf to ONNX Runtime's way of ending a run.
        4 => loop {
            std::thread::sleep(Duration::from_secs(1));
        },
        5 => exhaust_memory(),
        6 => std::thread::sleep(LONG),
        7 => {
            std::mem::forget(black_box(vec![1_u8; LEAK]));
            // The host looks at memory once a second: what leaks in that time stays below the hard
            // limit.
            std::thread::sleep(3 * LONG);
        }
        other => eprintln!("there is no fault {other}"),
    }
}

unsafe extern "C" {
    fn malloc(size: usize) -> *mut u8;
    fn free(memory: *mut u8);
}

fn free_twice() {
    // SAFETY: none: the second call is the fault. The C library notices it and ends the process.
    unsafe {
        let memory = black_box(malloc(100));
        free(memory);
        free(black_box(memory));
    }
}

fn exhaust_memory() {
    let mut held = Vec::new();
    // Written to, so that the kernel has to give it. Where it does not, the process ends.
    (0..MOST_MEMORY / STEP).for_each(|_| held.push(black_box(vec![1_u8; STEP])));
    eprintln!("a fault of the tests: {MOST_MEMORY} bytes were given, and no limit was met");
    std::process::abort();
}
