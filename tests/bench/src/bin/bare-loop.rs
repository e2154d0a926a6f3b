//! The bare loop as a program; see [`ocelli_bench::bare`]. `echo 10 | bare-loop ...` measures ten
//! seconds.

use std::io;
use std::path::PathBuf;

use clap::Parser;

/// Decodes a clip and detects objects in it, as one native loop. Each line of standard input, a
/// number of seconds, is answered by a line of JSON.
#[derive(Parser)]
#[command(name = "bare-loop", version)]
struct Arguments {
    /// ONNX Runtime's shared library.
    #[arg(long)]
    library: PathBuf,
    /// The ONNX file of the default pipeline's model.
    #[arg(long)]
    model: PathBuf,
    /// An mp4 file.
    clip: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let Arguments { library, model, clip } = Arguments::parse();
    let library = library.canonicalize()?;
    ocelli_bench::bare::serve(&library, &model, &clip, io::stdin().lock(), io::stdout().lock())
}
