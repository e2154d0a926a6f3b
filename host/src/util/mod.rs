//! Small values that more than one part of the host uses. They know no clock and no randomness of
//! their own: both come as parameters, so that tests are exact. Beside them, the host's ends of the
//! sockets to its child processes, folders, certificate authorities, and the boxes of MP4 files.

pub(crate) mod address;
pub(crate) mod authorities;
pub(crate) mod backoff;
pub(crate) mod bucket;
pub(crate) mod folder;
pub(crate) mod http_client;
pub(crate) mod installed;
pub(crate) mod line;
pub(crate) mod messages;
pub(crate) mod mp4;
pub(crate) mod packet_socket;
pub(crate) mod shown;
pub(crate) mod watch;
