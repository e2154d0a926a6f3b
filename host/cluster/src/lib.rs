//! Hosts that stand in for each other.
//!
//! A *site* is what one team's hosts have in common: three etcd and three nats-servers, which may run
//! on camera hosts. etcd says which host owns which camera ([`member`]); NATS JetStream holds what
//! has to outlast a host, and carries what is live ([`streams`]). Nothing here knows of workers,
//! pipelines or subscribers.
//!
//! # Why nobody speaks twice for a camera
//!
//! Each change of a camera's owner has an [`Epoch`], the revision that etcd gave it. A host speaks
//! for a camera until its own clock says that its lease may have ended ([`lease`]), and everything
//! that it writes is refused where another epoch has been there: a camera's events are a chain, each
//! of which names the one before ([`streams`]).

pub mod documents;
mod etcd;
pub mod lease;
pub mod member;
pub mod plan;
pub mod site;
pub mod streams;

pub use member::Member;
pub use site::{Epoch, SiteError, SiteOptions, SiteTls};
