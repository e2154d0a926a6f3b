//! Models by name, run with named tensors, and their outputs as numbers.

#[cfg(target_family = "wasm")]
mod host;

use std::borrow::Cow;

#[cfg(not(target_family = "wasm"))]
use crate::native::model::Runner;
use crate::{Tensor, TensorType};
#[cfg(target_family = "wasm")]
use host::Runner;

/// A loaded model.
pub struct Model {
    name: String,
    runner: Runner,
}

impl Model {
    /// Loads a model of the host's catalogue. Natively, in tests, those are there that
    /// `testing::model` has made.
    ///
    /// # Errors
    /// The host has no model of that name or cannot run it.
    pub fn load(name: &str) -> Result<Self, String> {
        let runner = Runner::load(name).map_err(|error| format!("model {name}: {error}"))?;
        Ok(Self { name: name.to_owned(), runner })
    }

    /// Runs the model on tensors, each with the name of its input.
    ///
    /// # Errors
    /// Tensors that do not fit the model, a run that failed or took too long.
    pub fn run<'a>(
        &self,
        inputs: impl IntoIterator<Item = (&'a str, Tensor)>,
    ) -> Result<Outputs, String> {
        let inputs = inputs.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect();
        let outputs =
            self.runner.compute(inputs).map_err(|error| format!("model {}: {error}", self.name))?;
        Ok(Outputs { model: self.name.clone(), outputs })
    }

    /// The name that the model was loaded by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The outputs of a run: named tensors, on the host's side until they are read.
pub struct Outputs {
    model: String,
    outputs: Vec<(String, Tensor)>,
}

impl Outputs {
    /// An output as it lies with the host, for [`boxes`](crate::boxes).
    ///
    /// # Errors
    /// The model has no output of that name.
    pub fn tensor(&self, name: &str) -> Result<&Tensor, String> {
        let found = self.outputs.iter().find(|(output, _)| output == name);
        found.map(|(_, tensor)| tensor).ok_or_else(|| {
            let names: Vec<_> = self.outputs.iter().map(|(name, _)| name.as_str()).collect();
            format!("model {} has no output {name:?}, it has {}", self.model, names.join(", "))
        })
    }

    /// Copies an output of whole numbers to the pipeline: i64, i32, u8, or f32 that are whole.
    ///
    /// # Errors
    /// The model has no output of that name, or one of another type.
    pub fn integers(&self, name: &str) -> Result<Vec<i64>, String> {
        let tensor = self.tensor(name)?;
        let data = tensor.data();
        Ok(match tensor.ty() {
            TensorType::I64 => data.as_chunks().0.iter().map(|&b| i64::from_le_bytes(b)).collect(),
            TensorType::I32 => {
                let (quads, _) = data.as_chunks();
                quads.iter().map(|&quad| i32::from_le_bytes(quad).into()).collect()
            }
            TensorType::U8 => data.into_iter().map(i64::from).collect(),
            TensorType::Fp32 => values(&data).iter().map(|&value| value as i64).collect(),
            other => {
                return Err(format!(
                    "output {name} of model {} is of type {other:?}, which is no whole number",
                    self.model
                ));
            }
        })
    }

    /// Copies an output of type f32 to the pipeline.
    ///
    /// # Errors
    /// The model has no output of that name, or one of another type.
    pub fn floats(&self, name: &str) -> Result<Floats, String> {
        let tensor = self.tensor(name)?;
        let ty = tensor.ty();
        if ty != TensorType::Fp32 {
            return Err(format!(
                "output {name} of model {} is of type {ty:?}, not f32",
                self.model
            ));
        }
        Floats::new(tensor.dimensions(), tensor.data())
            .map_err(|e| format!("output {name} of model {}: {e}", self.model))
    }
}

/// Outputs by their names, which a decoder reads: those of a run, or of a test.
pub trait OutputSource {
    /// See [`Outputs::floats`].
    ///
    /// # Errors
    /// There is no such output, or it is of another type.
    fn floats(&self, name: &str) -> Result<Floats, String>;

    /// See [`Outputs::integers`].
    ///
    /// # Errors
    /// There is no such output, or it is of another type.
    fn integers(&self, name: &str) -> Result<Vec<i64>, String>;
}

impl OutputSource for Outputs {
    fn floats(&self, name: &str) -> Result<Floats, String> {
        self.floats(name)
    }

    fn integers(&self, name: &str) -> Result<Vec<i64>, String> {
        self.integers(name)
    }
}

/// An f32 tensor's content.
#[derive(Debug, Clone)]
pub struct Floats {
    dimensions: Vec<u32>,
    bytes: Vec<u8>,
}

impl Floats {
    /// Bytes of f32 values, little endian, and their dimensions.
    ///
    /// # Errors
    /// A number of bytes that does not fit the dimensions.
    pub fn new(dimensions: Vec<u32>, bytes: Vec<u8>) -> Result<Self, String> {
        let count = dimensions.iter().try_fold(size_of::<f32>(), |n, &d| n.checked_mul(d as usize));
        if count == Some(bytes.len()) {
            Ok(Self { dimensions, bytes })
        } else {
            Err(format!("{} bytes do not fill the dimensions {dimensions:?}", bytes.len()))
        }
    }

    /// The size of each dimension.
    #[must_use]
    pub fn dimensions(&self) -> &[u32] {
        &self.dimensions
    }

    /// The values, row-major. Borrowed where the bytes lie aligned, as the allocator of a component
    /// gives them; copied elsewhere, for the interface promises no alignment.
    #[must_use]
    pub fn values(&self) -> Cow<'_, [f32]> {
        values(&self.bytes)
    }
}

#[allow(unsafe_code)]
fn values(bytes: &[u8]) -> Cow<'_, [f32]> {
    if cfg!(target_endian = "little") {
        // SAFETY: every pattern of four bytes is an f32, and `align_to` gives only whole, aligned
        // ones.
        let (before, values, after) = unsafe { bytes.align_to::<f32>() };
        if before.is_empty() && after.is_empty() {
            return Cow::Borrowed(values);
        }
    }
    let (quads, _) = bytes.as_chunks::<4>();
    Cow::Owned(quads.iter().map(|&quad| f32::from_le_bytes(quad)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_the_same_at_any_alignment() {
        let numbers = [1.5f32, -0.0, f32::MAX, 1e-40];
        let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        for shift in 0..4 {
            let mut shifted = vec![0u8; shift];
            shifted.extend(&bytes);
            assert_eq!(&*values(&shifted[shift..]), &numbers);
        }
        assert_eq!(&*Floats::new(vec![2, 2], bytes).unwrap().values(), &numbers);
    }

    #[test]
    fn bytes_that_do_not_fill_the_dimensions_are_refused() {
        assert!(Floats::new(vec![1, 2], vec![0; 8]).is_ok());
        assert!(Floats::new(vec![1, 3], vec![0; 8]).is_err());
        assert!(
            Floats::new(vec![u32::MAX; 4], vec![0; 8]).is_err(),
            "a product too large for memory"
        );
    }
}
