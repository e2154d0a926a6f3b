//! A pipeline that does harm: what, its setting `do` says. The tests run it beside healthy cameras,
//! which must not notice.
//!
//! | module | the victim |
//! | --- | --- |
//! | `time` | those who wait for the processor, or for this call to come back |
//! | `memory` | those who need memory |
//! | `handles` | the host's tables of what a component holds |
//! | `output` | those who read results and logs |
//! | `faults` | none: it breaks by itself |

mod attack;
mod faults;
mod handles;
mod memory;
mod output;
mod time;

use ocelli_sdk::{Description, Frame, Output, Pipeline, export_pipeline, settings};
use serde::Deserialize;

use attack::Attack;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    r#do: Attack,
}

/// The pipeline of one camera.
pub struct Hostile {
    attack: Attack,
    handles: handles::HeldHandles,
}

impl Pipeline for Hostile {
    fn describe() -> Description {
        Description {
            name: env!("CARGO_PKG_NAME").into(),
            version: env!("CARGO_PKG_VERSION").into(),
            models: vec![],
            settings_schema: r#"{
                "type": "object",
                "additionalProperties": false,
                "required": ["do"],
                "properties": {"do": {"type": "string"}}
            }"#
            .into(),
        }
    }

    fn new(json: &str) -> Result<Self, String> {
        let Settings { r#do: attack } = settings::parse(json)?;
        match attack {
            Attack::LoopInInit => time::run_for_ever(),
            Attack::SleepInInit => time::sleep(),
            Attack::TrapInInit => faults::trap(),
            _ => {}
        }
        Ok(Self { attack, handles: handles::HeldHandles::default() })
    }

    fn process(&mut self, frame: &Frame) -> Result<Output, String> {
        match self.attack {
            Attack::InfiniteLoop => time::run_for_ever(),
            Attack::Sleep => time::sleep(),
            Attack::Naps => time::nap_for_ever(),
            Attack::MemoryBomb => memory::fill(),
            Attack::StackOverflow => memory::recurse(0),
            Attack::DeepFrames => memory::recurse_with_large_frames(0),
            Attack::HugeTensor => return memory::ask_for_a_huge_tensor(frame),
            Attack::HugeTensorData => memory::claim_a_huge_tensor(),
            Attack::HugeRandom => memory::ask_for_huge_random(),
            Attack::UnknownHandle => handles::use_unknown(),
            Attack::DroppedHandle => handles::use_dropped(frame)?,
            Attack::LeakTensors => self.handles.keep_tensors(frame)?,
            Attack::LeakImages => self.handles.keep_images(frame)?,
            Attack::ManyEvents => return Ok(output::many_events()),
            Attack::ManyDetections => return Ok(output::many_detections()),
            Attack::ManyAttachments => return output::many_attachments(frame),
            Attack::LargeEvent => return Ok(output::event_of(output::LARGE)),
            Attack::HugeEvent => return Ok(output::event_of(output::HUGE)),
            Attack::SharedText => return Ok(output::shared_text()),
            Attack::NanScore => return Ok(output::nan_score()),
            Attack::NotJson => return Ok(output::event_data("{")),
            Attack::DeepJson => return Ok(output::event_data(output::deep_json())),
            Attack::LogFlood => output::flood_the_log(),
            Attack::HugeLogLine => output::log_a_huge_line(),
            Attack::Panic => faults::panic(frame.index()),
            Attack::TrapOnFrame50 if frame.index() == 50 => faults::trap(),
            Attack::ErrorOnEveryFrame => return Err(faults::ERROR.into()),
            Attack::LoopInInit
            | Attack::SleepInInit
            | Attack::TrapInInit
            | Attack::TrapOnFrame50
            | Attack::HugeAnswer => {}
        }
        Ok(Output::found(Vec::new()))
    }

    fn command(&mut self, request: &str) -> Result<String, String> {
        match self.attack {
            Attack::HugeAnswer => Ok(output::huge_answer()),
            _ => Ok(request.to_owned()),
        }
    }
}

export_pipeline!(Hostile);

#[cfg(test)]
mod tests {
    use super::*;
    use ocelli_sdk::testing::Schema;

    #[test]
    fn the_schema_wants_a_deed() {
        let schema = Schema::read(&Hostile::describe().settings_schema).unwrap();
        assert_eq!(schema.check(r#"{"do":"panic"}"#), Ok(()));
        assert!(schema.check("{}").is_err());
    }
}
