//! A model of the host.

use crate::Tensor;
use crate::bindings::wasi::nn::errors::Error;
use crate::bindings::wasi::nn::graph::{self, Graph};
use crate::bindings::wasi::nn::inference::GraphExecutionContext;

/// A model that was loaded.
pub(super) struct Runner {
    // Fields are dropped in order: the context before the graph that it was made of.
    context: GraphExecutionContext,
    _graph: Graph,
}

impl Runner {
    pub(super) fn load(name: &str) -> Result<Self, String> {
        let because = |what: &str, error: &Error| format!("{what}: {}", text(error));
        let graph = graph::load_by_name(name).map_err(|e| because("cannot be loaded", &e))?;
        let context =
            graph.init_execution_context().map_err(|e| because("cannot be made ready", &e))?;
        Ok(Self { context, _graph: graph })
    }

    pub(super) fn compute(
        &self,
        inputs: Vec<(String, Tensor)>,
    ) -> Result<Vec<(String, Tensor)>, String> {
        self.context.compute(inputs).map_err(|error| text(&error))
    }
}

fn text(error: &Error) -> String {
    format!("{} ({:?})", error.data(), error.code())
}
