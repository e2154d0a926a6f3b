//! A client of the Ocelli host, for the host's own commands, its tests, and programs of others.
//!
//! A [`Client`] is an address with the credentials for it. Each request opens a connection and
//! closes it: requests are rare, and live messages come over a WebSocket. An error answer is an
//! [`Error::Problem`] with the host's stable code (RFC 9457).
//!
//! A [`Subscriber`] is one WebSocket, opened when it is needed and opened again when it is lost. It
//! has no task and no queue of its own: [`Subscriber::next`] reads the next message when it is
//! called. The host queues a bounded number of messages for a slow program and counts what it
//! dropped ([`Message::Lagged`]). Call it at least every half minute, since it answers the host's
//! pings.
//!
//! The subscriber notes the number of the last event of each session. When the connection is lost,
//! `next` reports it once, and the next call connects and subscribes again from there: events come
//! at least once and in order, and duplicates are dropped by their number. Detections are live:
//! those of the time without a connection are gone.
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
//! // 41: the last event that this program has processed.
//! subscriber.subscribe(Subscribe::to("gate").after(41).detections(false)).await;
//! loop {
//!     match subscriber.next().await {
//!         Ok(Message::Event(event)) => println!("{} {} {}", event.session, event.seq, event.kind),
//!         Ok(Message::Error(refusal)) => eprintln!("{}", refusal.message),
//!         Ok(_) => {}
//!         // The next call waits a little, connects again and resumes.
//!         Err(error) if error.is_transient() => eprintln!("{error}"),
//!         Err(error) => return Err(error),
//!     }
//! }
//! # }
//! ```

#![warn(missing_docs)]

mod answer;
mod client;
mod error;
mod http;
mod message;
mod request;
mod resume;
mod subscriber;

pub use answer::{Deployment, EventPage, Gone, Model, Models, Session};
pub use client::Client;
pub use error::{Error, Problem};
pub use message::{
    Attachment, Attribute, Detection, Detections, Event, HostPart, HostStatus, Message, Refusal,
    SessionState, Subscribe,
};
pub use request::{Component, Deploy, Request, StateHandover};
pub use subscriber::Subscriber;
