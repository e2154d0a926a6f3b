//! Small values that more than one part of the host uses. They know no clock and no randomness of
//! their own: both come as parameters, so that tests are exact.

pub(crate) mod backoff;
pub(crate) mod bucket;
pub(crate) mod watch;
