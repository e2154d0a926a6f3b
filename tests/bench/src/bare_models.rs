//! Bare runs of models: ONNX Runtime with the options of `ocelli-inference`, one thread, the same
//! input each time, and nothing around it. What an embedding costs beyond this is Ocelli's.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use ort::logging::LogLevel;
use ort::value::Tensor;

use crate::bare::session;

/// A model and the shape of its one input, which is f32.
#[derive(Debug, Clone)]
pub struct BareModels {
    /// The ONNX file.
    pub file: PathBuf,
    /// The input's shape.
    pub shape: Vec<i64>,
}

impl std::str::FromStr for BareModels {
    type Err = anyhow::Error;

    /// `FILE=1x3x224x224`.
    fn from_str(text: &str) -> Result<Self> {
        let (file, shape) = text.rsplit_once('=').context("expected FILE=SHAPE")?;
        let shape = shape.split('x').map(str::parse).collect::<Result<_, _>>();
        Ok(Self { file: file.into(), shape: shape.with_context(|| format!("no shape: {text:?}"))? })
    }
}

/// Milliseconds of `runs` rounds, in each of which every model runs once, after two rounds that are
/// not counted.
pub fn measure(library: &Path, models: &[BareModels], runs: usize) -> Result<Vec<f64>> {
    let environment = ort::init_from(library)
        .map_err(|error| anyhow::anyhow!("{}: {error}", library.display()))?
        .with_name("bare-models")
        .with_telemetry(false)
        .build()?;
    environment.set_log_level(LogLevel::Warning);
    let mut loaded = Vec::new();
    for BareModels { file, shape } in models {
        let length = usize::try_from(shape.iter().product::<i64>())?;
        // No picture, and no constant either: numbers spread over the range of pixels.
        let values: Vec<f32> = (0..length).map(|index| (index * 37 % 251) as f32).collect();
        loaded.push((session(&environment, file)?, Tensor::from_array((shape.clone(), values))?));
    }
    let mut times = Vec::with_capacity(runs);
    for round in 0..runs + 2 {
        let begun = Instant::now();
        for (session, input) in &mut loaded {
            let name =
                session.inputs().first().context("the model has no input")?.name().to_owned();
            session.run(ort::inputs![name => &*input])?;
        }
        if round >= 2 {
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_written_with_its_shape() {
        let bare: BareModels = "models/a=b.onnx=1x3x8x8".parse().unwrap();
        assert_eq!((bare.file, bare.shape), ("models/a=b.onnx".into(), vec![1, 3, 8, 8]));
        assert!("a.onnx".parse::<BareModels>().is_err());
        assert!("a.onnx=1xthree".parse::<BareModels>().is_err());
    }
}
