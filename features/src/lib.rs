//! One set of features for every dependency, whatever part of the workspace is built.
//!
//! Cargo unifies features over the packages that one command selects. A test of one crate would
//! thus build Tokio, serde and all that stands on them anew, with other features than the whole
//! has. This crate asks for the features that the whole has: a command that selects it beside
//! others (`-p ocelli -p ocelli-features`) finds every dependency built. Nothing depends on it and
//! it has no code, so it changes no program; `./x` selects the whole workspace or this crate,
//! always.
//!
//! The programs are built with the features that tests want of the same dependencies, too (of Tokio
//! `test-util`, one load of a flag at each look at the clock), since only then the tests meet the
//! very files that `./x build` made.
//!
//! `./x lint` asks Cargo for the features of each crate's graph and names what is missing here.
