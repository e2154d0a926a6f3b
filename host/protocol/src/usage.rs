//! What a component has used of what it may use.

use serde::{Deserialize, Serialize};

/// The memory of a worker's component, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestUsage {
    /// Most that its linear memories had together.
    pub memory: u64,
    /// Tensors that it holds now.
    pub tensors: u64,
    /// Most that its tensors had together: inputs, outputs and what inferences return.
    pub tensors_peak: u64,
}
