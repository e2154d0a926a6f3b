//! Models by name, whose outputs a test scripts. Each thread has its own, as it has its store.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::tensor::Tensor;
use crate::models::ModelDescription;

/// A tensor with the name of its input or output.
pub type NamedTensor = (String, Tensor);

/// What a model does: inputs in, outputs or an error out.
type Run = Rc<dyn Fn(&[NamedTensor]) -> Result<Vec<NamedTensor>, String>>;

std::thread_local! {
    static MODELS: RefCell<BTreeMap<String, Run>> = const { RefCell::new(BTreeMap::new()) };
    static DESCRIPTIONS: RefCell<BTreeMap<String, ModelDescription>> =
        const { RefCell::new(BTreeMap::new()) };
}

/// Says what the host knows of a model, for the tests of this thread.
pub fn describe(name: &str, description: ModelDescription) {
    DESCRIPTIONS.with_borrow_mut(|known| known.insert(name.to_owned(), description));
}

/// What the host knows of a model: nothing of one that is scripted and not described.
pub(crate) fn description(name: &str) -> Result<ModelDescription, String> {
    if let Some(described) = DESCRIPTIONS.with_borrow(|known| known.get(name).cloned()) {
        return Ok(described);
    }
    let nothing = ModelDescription {
        inputs: Vec::new(),
        outputs: Vec::new(),
        picture: None,
        decoder: None,
        labels: Vec::new(),
    };
    MODELS.with_borrow(|models| match models.contains_key(name) {
        true => Ok(nothing),
        false => {
            let names = models.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            Err(format!("the host has no model {name:?}; it has: {names}"))
        }
    })
}

/// Makes a model of this name for the tests of this thread, or another of one that is there.
pub fn script(
    name: &str,
    run: impl Fn(&[NamedTensor]) -> Result<Vec<NamedTensor>, String> + 'static,
) {
    MODELS.with_borrow_mut(|models| models.insert(name.to_owned(), Rc::new(run)));
}

/// A model that was loaded.
pub(crate) struct Runner(Run);

impl Runner {
    pub(crate) fn load(name: &str) -> Result<Self, String> {
        let found = MODELS.with_borrow(|models| {
            let names = || models.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            models.get(name).cloned().ok_or_else(names)
        });
        found.map(Self).map_err(|names| {
            format!("cannot be loaded: the test has no model of this name, but {names:?}")
        })
    }

    pub(crate) fn compute(&self, inputs: Vec<NamedTensor>) -> Result<Vec<NamedTensor>, String> {
        (self.0)(&inputs)
    }
}
