//! Measures the whole chain beside a bare loop.
