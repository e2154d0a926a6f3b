//! What the kernel enforces on a child process, as the process itself found out when it confined
//! itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::VariantArray;

/// Something that the kernel enforces on a process.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
    strum::IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[schemars(inline)]
pub enum Measure {
    /// It can gain no privileges by starting a program.
    NoNewPrivileges,
    /// It reaches no file by name, or only those that it was granted (landlock).
    Files,
    /// It binds and connects no TCP socket (landlock).
    Network,
    /// It reaches no process and no abstract socket outside itself (landlock).
    Scopes,
    /// It makes only the system calls that its work needs (seccomp).
    SystemCalls,
    /// It ends when its parent ends.
    ParentDeath,
    /// It leaves no core dump.
    CoreDumps,
}

impl Measure {
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// Its name, in the API and in messages.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// A measure that is not in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct MissingMeasure {
    /// Which.
    pub measure: Measure,
    /// Why: what the kernel lacks or said.
    pub reason: String,
}

/// How a process is confined.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct Confinement {
    /// What is in force.
    pub enforced: Vec<Measure>,
    /// What is not.
    pub missing: Vec<MissingMeasure>,
}

impl Confinement {
    /// Whether everything is in force.
    pub fn is_complete(&self) -> bool {
        Measure::ALL.iter().all(|measure| self.enforced.contains(measure))
    }

    /// The missing measures with their reasons, for a person.
    pub fn missing_text(&self) -> String {
        let describe =
            |missing: &MissingMeasure| format!("{} ({})", missing.measure.name(), missing.reason);
        self.missing.iter().map(describe).collect::<Vec<_>>().join(", ")
    }
}

/// An attempt at something that a confined process must not be able to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The action that was tried.
    pub attempt: String,
    /// The kernel refused it, as confinement makes it refuse.
    pub refused: bool,
    /// The system's error, like `EPERM`; `None` if the attempt succeeded.
    pub error: Option<String>,
}

/// What `--sandbox-check` of a worker or a reader prints, as JSON: it confines itself as the host
/// would have it, then tries it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxCheck {
    /// The measures in force, as the process found out.
    pub confinement: Confinement,
    pub attempts: Vec<Attempt>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_confined_when_nothing_is_missing() {
        let mut confinement = Confinement { enforced: Measure::ALL.to_vec(), missing: Vec::new() };
        assert!(confinement.is_complete());
        let measure = confinement.enforced.pop().unwrap();
        confinement.missing.push(MissingMeasure { measure, reason: "the kernel has none".into() });
        assert!(!confinement.is_complete());
        assert_eq!(confinement.missing_text(), "core_dumps (the kernel has none)");
        assert!(!Confinement::default().is_complete());
    }

    #[test]
    fn a_measure_is_named_alike_in_messages_and_in_json() {
        for &measure in Measure::ALL {
            assert_eq!(serde_json::to_value(measure).unwrap(), measure.name());
        }
    }
}
