//! Demuxes one file or one camera with libavformat, in a confined process of its own.
