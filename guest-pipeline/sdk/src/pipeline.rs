//! The trait that a pipeline implements, and the macro that makes a component of it.

use crate::{Description, Frame, Output};

/// A pipeline: one value of the implementing type serves one camera.
///
/// Errors are texts for the operator; say what was wrong and, where there is one, the remedy.
pub trait Pipeline: Sized + 'static {
    /// Says what this component is. Called on a fresh instance before [`Pipeline::new`]; it must
    /// not depend on state.
    fn describe() -> Description;

    /// Makes the pipeline. Called once, before the first frame. `settings` is a JSON object that
    /// fits the schema of [`Pipeline::describe`]; read it with
    /// [`settings::parse`](crate::settings::parse).
    ///
    /// A deployment also makes pipelines that are dropped after a rehearsal; what these write to
    /// the [store](crate::store) is thrown away.
    ///
    /// # Errors
    /// Settings that make no sense, a model that cannot be loaded. The deployment fails with this
    /// text.
    fn new(settings: &str) -> Result<Self, String>;

    /// Looks at one frame. Called for each frame that the pipeline gets, in presentation order;
    /// frames may be missing ([`Frame::skipped`] says how many), so measure time by
    /// [`Frame::presentation_time`].
    ///
    /// # Errors
    /// The frame counts as failed and the pipeline gets the next one.
    fn process(&mut self, frame: &Frame) -> Result<Output, String>;

    /// Answers a question of anyone who sees the session: JSON in, JSON out. It changes nothing:
    /// the host refuses writes to the [store](crate::store) meanwhile, and `&self` keeps the
    /// pipeline as it is.
    ///
    /// # Errors
    /// A question that this pipeline does not know. By default that is every question.
    fn query(&self, request: &str) -> Result<String, String> {
        let _ = request;
        Err(format!("{} answers no queries", Self::describe().name))
    }

    /// Does what an operator asks, which may change the pipeline's state: JSON in, JSON out.
    ///
    /// # Errors
    /// A command that this pipeline does not know. By default that is every command.
    fn command(&mut self, request: &str) -> Result<String, String> {
        let _ = request;
        Err(format!("{} takes no commands", Self::describe().name))
    }

    /// The state that a following version should go on from: what is in view now, with the format
    /// of these bytes, so that another version can refuse them with words. What has to outlive a
    /// crash belongs into the [store](crate::store). Empty, as by default, for a pipeline that
    /// keeps none. The pipeline may be called again afterwards.
    fn snapshot(&mut self) -> Vec<u8> {
        Vec::new()
    }

    /// Takes over what another instance's [`Pipeline::snapshot`] gave; `version` is that instance's
    /// version. Called after [`Pipeline::new`] and before the first frame. By default the state is
    /// dropped and the pipeline starts afresh.
    ///
    /// # Errors
    /// State that cannot be taken over. The operator reads this text, and the host's settings say
    /// whether the version before goes on or a fresh instance of this one begins without.
    fn restore(&mut self, version: &str, state: &[u8]) -> Result<(), String> {
        let _ = (version, state);
        Ok(())
    }
}

/// Makes the component's exports of a type that implements [`Pipeline`]. Once in a crate of type
/// `cdylib`.
///
/// On a native target it only checks that the type implements the trait, so that a pipeline's logic
/// can be tested without a WebAssembly runtime.
#[macro_export]
macro_rules! export_pipeline {
    ($pipeline:ty) => {
        const _: () = {
            struct Exported;

            impl $crate::__private::InstanceSlot for Exported {
                type Pipeline = $pipeline;

                fn with<R>(f: impl FnOnce(&mut Option<$pipeline>) -> R) -> R {
                    ::std::thread_local! {
                        static INSTANCE: ::std::cell::RefCell<Option<$pipeline>> =
                            const { ::std::cell::RefCell::new(None) };
                    }
                    INSTANCE.with_borrow_mut(f)
                }
            }

            #[cfg(target_family = "wasm")]
    $crate::bindings::export_component!(Exported with_types_in $crate::bindings);
        };
    };
}
