//! `ocelli:pipeline/budget`, with the answers of a test.

use std::cell::RefCell;
use std::collections::VecDeque;

/// What is asked of one thread's budget.
#[derive(Default)]
struct Script {
    answers: VecDeque<bool>,
    asked: Vec<f32>,
}

thread_local! {
    static SCRIPT: RefCell<Script> = RefCell::default();
}

/// The next answer of the script; yes after the last.
pub(crate) fn ask(want: f32) -> bool {
    SCRIPT.with_borrow_mut(|script| {
        script.asked.push(want);
        script.answers.pop_front().unwrap_or(true)
    })
}

/// The next answers.
#[cfg(feature = "testing")]
pub(crate) fn say(answers: impl IntoIterator<Item = bool>) {
    SCRIPT.with_borrow_mut(|script| script.answers.extend(answers));
}

/// What was wanted since this was asked last.
#[cfg(feature = "testing")]
pub(crate) fn asked() -> Vec<f32> {
    SCRIPT.with_borrow_mut(|script| std::mem::take(&mut script.asked))
}
