//! A client of the Ocelli host.
