//! A client of the Ocelli host, for the host's own commands, its tests, and programs of others.
//!
//! A [`Client`] is an address with what is needed to be let in. Its requests each open a
//! connection, ask, and close it: a host is asked now and then, and what is to be heard at once
//! comes over a WebSocket. An answer that is an error is an [`Error::ConfigProblem`] with the
//! host's stable code (RFC 9457).
//!
//! A [`Subscriber`] is one WebSocket, opened when it is needed and opened again when it is lost. It
//! has no task and no queue of its own: [`Subscriber::next`] reads the next message when it is
//! called, so a program that is slow leaves the messages to the host, which keeps a bounded number
//! for it and says what it dropped ([`Message::Lagged`]). It has to be called at least every half
//! minute, because it is what answers the host's pings.
//!
//! The subscriber notes the number of the last event of each session. When the connection is lost,
//! `next` says so once, and the next call connects and subscribes again from there: events come at
//! least once and in order, and those that came before are dropped by their number. Detections are
//! live: those of the time without a connection are gone.
//!
//! ```no_run
//! # async fn run() -> Result<(), ocelli_client::Error> {
//! use ocelli_client::{Client, Message, Subscribe};
//!
//! let client = Client::new("http://127.0.0.1:8001")?;
//! for session in client.sessions().await? {
//!     println!("{} is {}", session.id, session.state);
//! }
//! let mut subscriber = client.subscriber();
//! // 41: the last event that this program has dealt with.
//! subscriber.subscribe(Subscribe::to("gate").after(41).detections(false)).await;
//! loop {
//!     match subscriber.next().await {
//!         Ok(Message::Event(event)) => println!("{} {} {}", event.session, event.seq, event.kind),
//!         Ok(Message::Error(refusal)) => eprintln!("{}", refusal.message),
//!         Ok(_) => {}
//!         // The next call waits a little, connects again and resumes.
//!         Err(error) if error.may_pass() => eprintln!("{error}"),
//!         Err(error) => return Err(error),
//!     }
//! }
//! # }
//! ```

mod answer;
mod client;
mod error;
mod http;
mod message;
mod resume;
mod subscriber;

pub use answer::{Deployment, EventPage, Gone, Model, Models, Session};
pub use client::{Client, Component, Deploy, RefusedState, Request};
pub use error::{Error, Problem};
pub use message::{
    Attachment, Attribute, Detection, Detections, Event, Message, Refusal, SessionState, Subscribe,
};
pub use subscriber::Subscriber;
