//! A pipeline that does harm: what, its setting `do` says. The tests run it beside healthy cameras,
//! which must not notice.
//!
//! | module | whom it tries to hurt |
//! | --- | --- |
//! | `time` | those who wait for the processor, or for this call to come back |
//! | `memory` | those who need memory |
//! | `handles` | the host's tables of what a component holds |
//! | `output` | those who read results and logs |
//! | `faults` | nobody: it breaks by itself |

mod deed;
mod faults;
mod handles;
mod memory;
mod output;
mod time;

use ocelli_sdk::{Description, Frame, Output, Pipeline, export_pipeline, settings};
use serde::Deserialize;

use deed::Deed;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    r#do: Deed,
}

/// The pipeline of one camera.
pub struct Hostile {
    deed: Deed,
    handles: handles::Kept,
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
        let Settings { r#do: deed } = settings::parse(json)?;
        match deed {
            Deed::LoopInInit => time::run_for_ever(),
            Deed::SleepInInit => time::sleep(),
            Deed::TrapInInit => faults::trap(),
            _ => {}
        }
        Ok(Self { deed, handles: handles::Kept::default() })
    }

    fn process(&mut self, frame: &Frame) -> Result<Output, String> {
        match self.deed {
            Deed::InfiniteLoop => time::run_for_ever(),
            Deed::Sleep => time::sleep(),
            Deed::Naps => time::nap_for_ever(),
            Deed::MemoryBomb => memory::fill(),
            Deed::StackOverflow => memory::recurse(0),
            Deed::DeepFrames => memory::recurse_with_large_frames(0),
            Deed::HugeTensor => return memory::ask_for_a_huge_tensor(frame),
            Deed::HugeTensorData => memory::claim_a_huge_tensor(),
            Deed::HugeRandom => memory::ask_for_huge_random(),
            Deed::UnknownHandle => handles::use_unknown(),
            Deed::DroppedHandle => handles::use_dropped(frame)?,
            Deed::LeakTensors => self.handles.keep_tensors(frame)?,
            Deed::LeakImages => self.handles.keep_images(frame)?,
            Deed::ManyEvents => return Ok(output::many_events()),
            Deed::ManyDetections => return Ok(output::many_detections()),
            Deed::ManyAttachments => return output::many_attachments(frame),
            Deed::LargeEvent => return Ok(output::event_of(output::LARGE)),
            Deed::HugeEvent => return Ok(output::event_of(output::HUGE)),
            Deed::SharedText => return Ok(output::shared_text()),
            Deed::NanScore => return Ok(output::nan_score()),
            Deed::NotJson => return Ok(output::event_data("{")),
            Deed::DeepJson => return Ok(output::event_data(output::deep_json())),
            Deed::LogFlood => output::flood_the_log(),
            Deed::HugeLogLine => output::log_a_huge_line(),
            Deed::Panic => faults::panic(frame.index()),
            Deed::TrapOnFrame50 if frame.index() == 50 => faults::trap(),
            Deed::ErrorOnEveryFrame => return Err(faults::ERROR.into()),
            Deed::LoopInInit
            | Deed::SleepInInit
            | Deed::TrapInInit
            | Deed::TrapOnFrame50
            | Deed::HugeAnswer => {}
        }
        Ok(Output { detections: Some(Vec::new()), events: Vec::new() })
    }

    fn command(&mut self, request: &str) -> Result<String, String> {
        match self.deed {
            Deed::HugeAnswer => Ok(output::huge_answer()),
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
