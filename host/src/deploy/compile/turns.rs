//! Whose component is compiled next.
//!
//! Compiling takes up to minutes and a component's author decides how long, so there are few turns,
//! and no caller has more than one at a time: with a turn under way, a caller waits for its own end,
//! and others go past. Waiting callers take turns in a circle, whatever number of components each
//! has; those of one caller go in their order. A caller that has had a turn goes to the end.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

/// Compilations at a time. One uses all cores where it can; with the second, a short one does not
/// wait for one that takes minutes.
const TURNS: usize = 2;

/// The turns of all callers. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct CompileTurns {
    state: Arc<Mutex<TurnState>>,
}

#[derive(Default)]
struct TurnState {
    /// The callers of the turns under way: at most [`TURNS`], each once.
    running: Vec<String>,
    /// Callers that wait, the next first, each with those that it wants turns for.
    waiting: VecDeque<(String, VecDeque<oneshot::Sender<CompileTurn>>)>,
}

/// A turn, until it is dropped.
pub(super) struct CompileTurn {
    turns: CompileTurns,
    caller: String,
}

impl CompileTurns {
    /// Waits for a turn. May be dropped at any time.
    pub(super) async fn take(&self, caller: &str) -> CompileTurn {
        let (given, turn) = oneshot::channel();
        {
            let mut state = self.state.lock();
            match state.waiting.iter_mut().find(|(other, _)| other == caller) {
                Some((_, wanted)) => wanted.push_back(given),
                None => state.waiting.push_back((caller.to_owned(), [given].into())),
            }
        }
        self.give();
        match turn.await {
            Ok(turn) => turn,
            // The sender lives in the queue until it is used.
            Err(_) => std::future::pending().await,
        }
    }

    /// Gives free turns to those that wait.
    fn give(&self) {
        // Not under the lock: a turn that is not wanted any more is dropped, and gives the next.
        while let Some((given, turn)) = self.next() {
            let _ = given.send(turn);
        }
    }

    fn next(&self) -> Option<(oneshot::Sender<CompileTurn>, CompileTurn)> {
        let mut state = self.state.lock();
        let TurnState { running, waiting } = &mut *state;
        if running.len() >= TURNS {
            return None;
        }
        waiting.iter_mut().for_each(|(_, wanted)| wanted.retain(|given| !given.is_closed()));
        waiting.retain(|(_, wanted)| !wanted.is_empty());
        let place = waiting.iter().position(|(caller, _)| !running.contains(caller))?;
        let (caller, mut wanted) = waiting.remove(place)?;
        let given = wanted.pop_front()?;
        if !wanted.is_empty() {
            waiting.push_back((caller.clone(), wanted));
        }
        running.push(caller.clone());
        Some((given, CompileTurn { turns: self.clone(), caller }))
    }
}

impl Drop for CompileTurn {
    fn drop(&mut self) {
        {
            let mut state = self.turns.state.lock();
            state.running.retain(|caller| *caller != self.caller);
            // Behind those that have not had one.
            let place = state.waiting.iter().position(|(caller, _)| *caller == self.caller);
            if let Some(more) = place.and_then(|place| state.waiting.remove(place)) {
                state.waiting.push_back(more);
            }
        }
        self.turns.give();
    }
}

/// The components that are being compiled, by their digests: who wants one of those waits for its
/// end, and finds it in the cache then. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct UnderWay {
    ends: Arc<Mutex<BTreeMap<String, watch::Receiver<()>>>>,
}

/// A component that is being compiled, until this is dropped.
pub(super) struct Begun {
    under_way: UnderWay,
    digest: String,
    /// Dropping it tells those that wait.
    _ends: watch::Sender<()>,
}

impl UnderWay {
    /// Waits until nothing compiles this component. May be dropped at any time.
    pub(super) async fn end(&self, digest: &str) {
        let end = self.ends.lock().get(digest).cloned();
        if let Some(mut end) = end {
            // Nothing is ever sent.
            let _ = end.changed().await;
        }
    }

    /// Notes that this component is being compiled; `None` where it is already.
    pub(super) fn begin(&self, digest: &str) -> Option<Begun> {
        let mut ends = self.ends.lock();
        if ends.contains_key(digest) {
            return None;
        }
        let (sender, end) = watch::channel(());
        ends.insert(digest.to_owned(), end);
        Some(Begun { under_way: self.clone(), digest: digest.to_owned(), _ends: sender })
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.under_way.ends.lock().remove(&self.digest);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use futures_util::FutureExt;

    use super::*;

    type Waiting<'a> = Pin<Box<dyn Future<Output = CompileTurn> + 'a>>;

    /// Asks for turns, in this order; each has asked when this returns.
    fn ask<'a>(turns: &'a CompileTurns, callers: &[&'a str]) -> Vec<(String, Waiting<'a>)> {
        let mut waiting = Vec::new();
        for caller in callers {
            let mut turn: Waiting<'a> = Box::pin(turns.take(caller));
            let turn: Waiting<'a> = match turn.as_mut().now_or_never() {
                Some(turn) => Box::pin(std::future::ready(turn)),
                None => turn,
            };
            waiting.push(((*caller).to_owned(), turn));
        }
        waiting
    }

    /// The first of those that wait whose turn it is, with the turn.
    fn given(waiting: &mut Vec<(String, Waiting<'_>)>) -> Option<(String, CompileTurn)> {
        for place in 0..waiting.len() {
            if let Some(turn) = waiting[place].1.as_mut().now_or_never() {
                return Some((waiting.remove(place).0, turn));
            }
        }
        None
    }

    #[test]
    fn a_caller_with_many_has_one_turn_and_others_go_past() {
        let turns = CompileTurns::default();
        let mut waiting = ask(&turns, &["bombs", "bombs", "bombs", "small"]);
        let (first, bomb) = given(&mut waiting).unwrap();
        let (second, small) = given(&mut waiting).unwrap();
        assert_eq!((first.as_str(), second.as_str()), ("bombs", "small"));
        drop(small);
        assert!(given(&mut waiting).is_none(), "the other turn is not for the same caller");
        drop(bomb);
        assert_eq!(given(&mut waiting).unwrap().0, "bombs");
    }

    #[test]
    fn callers_take_turns_whatever_number_each_has() {
        let turns = CompileTurns::default();
        let mut waiting = ask(&turns, &["a", "a", "a", "b", "b", "b", "c", "d"]);
        let mut held = VecDeque::new();
        let mut order = String::new();
        while let Some((caller, turn)) = given(&mut waiting) {
            order += &caller;
            held.push_back(turn);
            if held.len() == TURNS {
                held.pop_front();
            }
        }
        assert_eq!(order, "abcdabab");
    }

    #[test]
    fn a_turn_that_nothing_waits_for_any_more_goes_to_the_next() {
        let turns = CompileTurns::default();
        let mut waiting = ask(&turns, &["a", "b", "gone", "c"]);
        let (_, a) = given(&mut waiting).unwrap();
        let (_, _b) = given(&mut waiting).unwrap();
        drop(waiting.remove(0));
        drop(a);
        assert_eq!(given(&mut waiting).unwrap().0, "c");
    }
}
