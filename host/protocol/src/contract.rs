//! The versions of the pipeline contract (`wit/`) that this release serves. The compiler checks
//! components against them, the worker links components of each.

/// The WIT package whose version a component's imports and exports name.
pub const PACKAGE: &str = "ocelli:pipeline";

/// The versions of [`PACKAGE`] that are served, oldest first.
pub const SERVED: [&str; 3] = ["0.1.0", "0.2.0", "0.3.0"];
