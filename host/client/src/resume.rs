//! The subscriptions and event numbers of a subscriber, for the next connection.

use std::collections::{BTreeMap, HashMap};

use crate::message::{After, EVERY_SESSION, Message, Refusal, SessionState, Subscribe};

/// Sessions whose last event is noted. Beyond that, sessions that have ended are forgotten; a host
/// has a thousand at a time.
const MAX_NOTED: usize = 10_000;

/// Bytes of the numbers in a subscription to all: with the rest, below the host's limit of 64 KiB.
/// Enough for a thousand sessions with names of up to 30 bytes; the sessions beyond resume with
/// their next event.
const MAX_EACH: usize = 48 << 10;

/// Codes of errors that refuse a subscription.
const REFUSALS: [&str; 7] = [
    "unknown_session",
    "after_ahead",
    "forbidden",
    "session_refused",
    "too_many_subscriptions",
    "too_many_requests",
    "internal",
];

/// Subscriptions and the last event of each session.
#[derive(Debug, Default)]
pub(crate) struct Resume {
    /// The subscriptions, by session.
    subscriptions: BTreeMap<String, Subscription>,
    last_events: HashMap<String, LastEvent>,
}

#[derive(Debug)]
struct Subscription {
    subscribe: Subscribe,
    /// Whether it was sent over this connection and is not answered yet.
    is_pending: bool,
}

#[derive(Debug)]
struct LastEvent {
    /// The number of the last event.
    seq: u64,
    /// Whether the session has ended.
    ended: bool,
}

impl Resume {
    /// Notes a subscription that is about to be sent.
    pub(crate) fn subscribe(&mut self, subscribe: Subscribe) {
        self.subscriptions
            .insert(subscribe.session.clone(), Subscription { subscribe, is_pending: true });
    }

    /// Forgets a subscription.
    pub(crate) fn unsubscribe(&mut self, session: &str) {
        self.subscriptions.remove(session);
    }

    /// The subscriptions to send over a new connection.
    pub(crate) fn resubscriptions(&mut self) -> Vec<Subscribe> {
        let Self { subscriptions, last_events } = self;
        subscriptions
            .values_mut()
            .map(|subscription| {
                subscription.is_pending = true;
                let session = &subscription.subscribe.session;
                if session == EVERY_SESSION {
                    each(&mut subscription.subscribe, last_events);
                } else if let Some(last) = last_events.get(session) {
                    subscription.subscribe.after = Some(After::One(last.seq));
                }
                subscription.subscribe.clone()
            })
            .collect()
    }

    /// Notes a message. False for an event that has come before.
    pub(crate) fn accept(&mut self, message: &Message) -> bool {
        match message {
            Message::Event(event) => return self.event(&event.session, event.seq),
            Message::Subscribed { session, .. } => self.subscribed(session),
            Message::Session { session, state, .. } => {
                if let Some(last) = self.last_events.get_mut(session) {
                    last.ended = *state == SessionState::Stopped;
                }
            }
            Message::Error(Refusal { code, session: Some(session), .. }) => {
                let refused = REFUSALS.contains(&code.as_str());
                if refused
                    && self
                        .subscriptions
                        .get(session)
                        .is_some_and(|subscription| subscription.is_pending)
                {
                    self.subscriptions.remove(session);
                }
            }
            _ => {}
        }
        true
    }

    fn event(&mut self, session: &str, seq: u64) -> bool {
        match self.last_events.get_mut(session) {
            Some(last) if seq <= last.seq => return false,
            Some(last) => *last = LastEvent { seq, ended: false },
            None => self.note(session, seq),
        }
        true
    }

    /// The host counts from the subscription's number, so events after it may come again.
    fn subscribed(&mut self, session: &str) {
        let Some(subscription) = self.subscriptions.get_mut(session) else { return };
        if !std::mem::take(&mut subscription.is_pending) {
            return;
        }
        match subscription.subscribe.after.clone() {
            Some(After::One(seq)) => self.note(session, seq),
            Some(After::Each(each)) => {
                each.iter().for_each(|(session, seq)| self.note(session, *seq))
            }
            None if session == EVERY_SESSION => {}
            None => {
                self.last_events.remove(session);
            }
        }
    }

    fn note(&mut self, session: &str, seq: u64) {
        if self.last_events.len() >= MAX_NOTED && !self.last_events.contains_key(session) {
            self.last_events.retain(|_, last| !last.ended);
        }
        self.last_events.insert(session.into(), LastEvent { seq, ended: false });
    }
}

/// Sets the last number of each session, those that run first.
fn each(subscribe: &mut Subscribe, last_events: &HashMap<String, LastEvent>) {
    let mut noted: Vec<_> = last_events.iter().collect();
    noted.sort_by_key(|(session, last)| (last.ended, session.as_str()));
    let mut left = MAX_EACH;
    let fit = noted.into_iter().map_while(|(session, last)| {
        // Quotes, colon, comma and the digits. A character is escaped as six bytes at most.
        left = left.checked_sub(6 * session.len().min(session.chars().count()) + 24)?;
        Some((session.clone(), last.seq))
    });
    let Some(After::Each(each)) = &mut subscribe.after else {
        let each: BTreeMap<String, u64> = fit.collect();
        subscribe.after = (!each.is_empty()).then_some(After::Each(each));
        return;
    };
    each.extend(fit);
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::{Value, json};

    use super::*;
    use crate::message::text;

    fn message(value: Value) -> Message {
        Message::deserialize(value).unwrap()
    }

    fn subscribed(session: &str) -> Message {
        message(json!({"type": "subscribed", "session": session, "state": "running"}))
    }

    fn event(session: &str, seq: u64) -> Message {
        message(
            json!({"type": "event", "session": session, "seq": seq, "time": "", "kind": "", "deployment": ""}),
        )
    }

    fn error(code: &str, session: &str) -> Message {
        message(json!({"type": "error", "code": code, "message": "", "session": session}))
    }

    /// What is sent over a new connection, without what never changes.
    fn again(resume: &mut Resume) -> Vec<Value> {
        let sent = resume.resubscriptions();
        sent.iter()
            .map(|subscription| {
                serde_json::from_str::<Value>(&text(subscription)).unwrap()["after"].clone()
            })
            .collect()
    }

    #[test]
    fn a_new_connection_goes_on_after_the_last_event_and_duplicates_are_dropped() {
        let mut resume = Resume::default();
        resume.subscribe(Subscribe::to("gate").after(41));
        assert!(resume.accept(&subscribed("gate")));
        assert!(!resume.accept(&event("gate", 41)) && resume.accept(&event("gate", 42)));
        // Where a journal was damaged, numbers jump.
        assert!(resume.accept(&event("gate", 50)));
        assert_eq!(again(&mut resume), [json!(50)]);
        assert!(!resume.accept(&event("gate", 42)) && !resume.accept(&event("gate", 50)));
        assert!(resume.accept(&subscribed("gate")));
        assert!(!resume.accept(&event("gate", 50)) && resume.accept(&event("gate", 51)));
    }

    #[test]
    fn a_connection_lost_before_the_first_event_goes_on_where_it_was_to_begin() {
        let mut resume = Resume::default();
        resume.subscribe(Subscribe::to("gate").after(7));
        resume.subscribe(Subscribe::to("yard"));
        assert_eq!(again(&mut resume), [json!(7), Value::Null]);
        resume.accept(&subscribed("gate"));
        resume.accept(&subscribed("yard"));
        assert_eq!(again(&mut resume), [json!(7), Value::Null]);
    }

    #[test]
    fn a_wish_that_is_made_anew_gets_again_what_it_asks_for() {
        let mut resume = Resume::default();
        resume.subscribe(Subscribe::to("gate"));
        resume.accept(&subscribed("gate"));
        assert!(resume.accept(&event("gate", 9)));
        resume.subscribe(Subscribe::to("gate").after(3));
        // On its way when the subscription was sent.
        assert!(resume.accept(&event("gate", 10)));
        resume.accept(&subscribed("gate"));
        assert!(resume.accept(&event("gate", 4)));
        // A host whose store was deleted counts from 1.
        resume.subscribe(Subscribe::to("gate"));
        resume.accept(&subscribed("gate"));
        assert!(resume.accept(&event("gate", 1)));
    }

    #[test]
    fn what_was_refused_is_not_asked_for_again() {
        let mut resume = Resume::default();
        for session in ["gate", "yard", "door"] {
            resume.subscribe(Subscribe::to(session));
        }
        resume.accept(&error("unknown_session", "gate"));
        resume.accept(&subscribed("yard"));
        // Of a command, since the subscription holds.
        assert!(resume.accept(&error("forbidden", "yard")));
        resume.accept(&error("events_gone", "door"));
        resume.unsubscribe("nobody");
        let sessions: Vec<String> =
            resume.resubscriptions().into_iter().map(|subscription| subscription.session).collect();
        assert_eq!(sessions, ["door", "yard"]);
    }

    #[test]
    fn a_subscription_to_all_names_the_sessions_that_were_heard() {
        let mut resume = Resume::default();
        resume.subscribe(
            Subscribe::to_all().after_each([("a".to_owned(), 1), ("b".to_owned(), 2)].into()),
        );
        resume.accept(&subscribed("*"));
        resume.accept(&subscribed("a"));
        assert!(
            !resume.accept(&event("a", 1))
                && resume.accept(&event("a", 2))
                && resume.accept(&event("c", 8))
        );
        assert_eq!(again(&mut resume), [json!({"a": 2, "b": 2, "c": 8})]);
        let mut plain = Resume::default();
        plain.subscribe(Subscribe::to_all());
        assert_eq!(again(&mut plain), [Value::Null]);
    }

    #[test]
    fn long_names_leave_a_request_that_a_host_reads_and_those_that_run_go_first() {
        let mut resume = Resume::default();
        resume.subscribe(Subscribe::to_all());
        resume.accept(&subscribed("*"));
        let name = |number: usize| format!("{number:04}{}", "\"".repeat(196));
        for number in 0..1000 {
            assert!(resume.accept(&event(&name(number), u64::MAX)));
        }
        let stopped =
            json!({"type": "session", "session": name(0), "state": "stopped", "reason": null});
        assert!(resume.accept(&message(stopped)));
        let sent = text(&resume.resubscriptions()[0]);
        assert!(sent.len() < 64 << 10 && sent.contains("\"0001"), "{}", sent.len());
        assert!(!sent.contains("\"0000"), "{sent:.300}");
    }

    #[test]
    fn ended_sessions_are_forgotten_when_there_are_very_many() {
        let mut resume = Resume::default();
        resume.subscribe(Subscribe::to_all());
        for number in 0..MAX_NOTED + 5 {
            let session = format!("display-{number}");
            assert!(resume.accept(&event(&session, 1)));
            if number > 0 {
                let state = json!({"type": "session", "session": session, "state": "stopped", "reason": null});
                resume.accept(&message(state));
            }
        }
        assert!(resume.last_events.len() < 10 && resume.last_events.contains_key("display-0"));
    }
}
