//! How long the long loops are: damaged files, changes in a row, connections that are cut off. A
//! promise is tested with a quarter of the rounds at each landing, and with all of them by
//! `./x test --full`.
//!
//! A loop of this kind holds the same assertions at both depths and goes through the same seeds
//! from the first on. Where it has kinds of cases (codecs, formats, rules), the rounds are those of
//! each kind, so that none is left out.

/// What `./x test --full` sets, to `full`.
pub const VARIABLE: &str = "OCELLI_TEST_DEPTH";

/// Whether this is a full run.
pub fn is_full() -> bool {
    std::env::var_os(VARIABLE).is_some_and(|depth| depth == "full")
}

/// Rounds of a loop that has `full` of them in a full run: those, or a quarter, rounded up.
pub fn rounds(full: usize) -> usize {
    if is_full() { full } else { full.div_ceil(4) }
}
