//! Bare runs of models as a program; see [`ocelli_bench::bare_models`]. Prints the milliseconds of
//! each round as JSON.

use std::path::PathBuf;

use clap::Parser;
use ocelli_bench::bare_models::{BareModels, measure};

/// Runs models one after the other, round by round.
#[derive(Parser)]
#[command(name = "bare-models", version)]
struct Arguments {
    /// ONNX Runtime's shared library.
    #[arg(long)]
    library: PathBuf,
    /// Rounds that are counted.
    #[arg(long, default_value_t = 50)]
    runs: usize,
    /// FILE=SHAPE, such as model.onnx=1x3x224x224.
    #[arg(required = true)]
    models: Vec<BareModels>,
}

fn main() -> anyhow::Result<()> {
    let Arguments { library, runs, models } = Arguments::parse();
    let times = measure(&library.canonicalize()?, &models, runs)?;
    println!("{}", serde_json::to_string(&times)?);
    Ok(())
}
