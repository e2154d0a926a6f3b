//! Between the generated exports, which are free functions, and a [`Pipeline`], which is a value.

use crate::bindings::exports::ocelli::pipeline::pipeline::Guest;
use crate::{Description, Frame, Output, Pipeline};

/// The place where a component keeps its one pipeline. A component runs on one thread and the host
/// never re-enters it.
pub trait InstanceSlot {
    /// The type of the instance.
    type Pipeline: Pipeline;

    /// Gives access to the place, which is empty until `init`.
    fn with<R>(f: impl FnOnce(&mut Option<Self::Pipeline>) -> R) -> R;
}

fn with<S: InstanceSlot, R>(
    call: &'static str,
    f: impl FnOnce(&mut S::Pipeline) -> Result<R, String>,
) -> Result<R, String> {
    S::with(|slot| f(slot.as_mut().ok_or_else(|| format!("{call} was called before init"))?))
}

/// What a panic says: where it is, and its words. The standard library adds the name of a thread,
/// which a component has not, and a hint at a variable that it cannot be given.
fn tell_panics() {
    #[cfg(target_family = "wasm")]
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
}

impl<S: InstanceSlot> Guest for S {
    fn describe() -> Description {
        tell_panics();
        S::Pipeline::describe()
    }

    fn init(settings: String) -> Result<(), String> {
        tell_panics();
        let pipeline = S::Pipeline::new(&settings)?;
        S::with(|slot| *slot = Some(pipeline));
        Ok(())
    }

    fn process(frame: &Frame) -> Result<Output, String> {
        with::<S, _>("process", |pipeline| pipeline.process(frame))
    }

    fn query(request: String) -> Result<String, String> {
        with::<S, _>("query", |pipeline| pipeline.query(&request))
    }

    fn command(request: String) -> Result<String, String> {
        with::<S, _>("command", |pipeline| pipeline.command(&request))
    }

    fn snapshot() -> Vec<u8> {
        S::with(|slot| slot.as_mut().map(Pipeline::snapshot).unwrap_or_default())
    }

    fn restore(version: String, state: Vec<u8>) -> Result<(), String> {
        with::<S, _>("restore", |pipeline| pipeline.restore(&version, &state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    struct Counter(u8);

    impl Pipeline for Counter {
        fn describe() -> Description {
            Description {
                name: "counter".into(),
                version: "1.0.0".into(),
                models: vec![],
                settings_schema: String::new(),
            }
        }

        fn new(settings: &str) -> Result<Self, String> {
            settings.parse().map(Self).map_err(|_| format!("settings: {settings:?} is no number"))
        }

        fn process(&mut self, _: &Frame) -> Result<Output, String> {
            Ok(Output::skipped())
        }

        fn snapshot(&mut self) -> Vec<u8> {
            vec![self.0]
        }
    }

    struct Place;

    impl InstanceSlot for Place {
        type Pipeline = Counter;

        fn with<R>(f: impl FnOnce(&mut Option<Counter>) -> R) -> R {
            thread_local! {
                static INSTANCE: RefCell<Option<Counter>> = const { RefCell::new(None) };
            }
            INSTANCE.with_borrow_mut(f)
        }
    }

    #[test]
    fn calls_before_init_are_errors_and_describe_is_not() {
        assert_eq!(Place::describe().name, "counter");
        assert_eq!(Place::command("{}".into()), Err("command was called before init".into()));
        assert_eq!(
            Place::restore("1.0.0".into(), vec![]),
            Err("restore was called before init".into())
        );
        assert!(Place::snapshot().is_empty());
    }

    #[test]
    fn a_pipeline_that_refuses_its_settings_is_not_there() {
        assert!(Place::init("many".into()).is_err_and(|e| e.contains("\"many\"")));
        assert!(Place::command("{}".into()).is_err_and(|e| e.contains("before init")));
    }

    #[test]
    fn after_init_calls_reach_the_pipeline() {
        Place::init("7".into()).unwrap();
        assert_eq!(Place::snapshot(), [7]);
        assert_eq!(Place::query("{}".into()), Err("counter answers no queries".into()));
        assert_eq!(Place::command("{}".into()), Err("counter takes no commands".into()));
        assert_eq!(Place::restore("0.9.0".into(), vec![1, 2]), Ok(()));
    }
}
