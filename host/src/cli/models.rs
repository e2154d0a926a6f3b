//! `ocelli models`: lists, inspects and adds models.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::config::{Config, DEFAULT_PATH};
use crate::inference::catalog::{
    Catalog, CatalogEntry, GraphCensus, MANIFEST, Manifest, ModelDecoder, ModelInfo,
    ModelInspector, Preprocessing, Recognised, mismatch, recognise,
};
use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use ocelli_protocol::digest::Digest;
use ocelli_protocol::graph::{GraphTensor, Inspection};
use ocelli_protocol::inference::{Model, TensorDeclaration};
use ocelli_protocol::shm::ALIGNMENT;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::{Value, json};

use super::suggest::suggestion;
use super::table::{Look, lines, printable};

/// The form of a model's name, which is a folder's too.
const NAME: &str =
    "letters, digits, '-', '_' and '.', at most 100 of them, the first none of the last three";

/// The graph's file in a folder that is made here.
const FILE: &str = "model.onnx";

/// Labels that `inspect` prints: a line or two. `--json` has all of them.
const LABELS_SHOWN: usize = 12;

/// The commands about models.
#[derive(Subcommand)]
pub(super) enum ModelCommand {
    /// List the models in the models' folder, each checked against its model.toml.
    List {
        #[command(flatten)]
        site: ConfigArgs,
        /// For programs.
        #[arg(long)]
        json: bool,
    },
    /// Show what a model has, and whether its model.toml agrees with its file; or what an ONNX file
    /// has.
    Inspect {
        /// A model's name, or the path of an ONNX file.
        #[arg(value_name = "NAME|FILE")]
        what: String,
        #[command(flatten)]
        site: ConfigArgs,
        /// For programs.
        #[arg(long)]
        json: bool,
    },
    /// Put an ONNX file into the models' folder, with a model.toml made from what it has.
    Add {
        /// The ONNX file. It is copied.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        site: ConfigArgs,
        #[command(flatten)]
        about: ModelArgs,
        /// Take the place of the model of that name.
        #[arg(long)]
        replace: bool,
    },
}

/// Where the models are.
#[derive(Args)]
pub(super) struct ConfigArgs {
    /// The config: TOML, or JSON with the same keys.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
}

/// Facts about a model that its file does not hold.
#[derive(Args)]
pub(super) struct ModelArgs {
    /// The name by which pipelines ask for it.
    #[arg(long)]
    name: String,
    /// One sentence.
    #[arg(long, default_value = "")]
    description: String,
    /// Its licence, an SPDX expression.
    #[arg(long, default_value = "LicenseRef-unknown")]
    licence: String,
    /// Where it comes from. Left out: the file's name.
    #[arg(long)]
    source: Option<String>,
    /// A text file with the class names in the order of the outputs, one on each line. Left out:
    /// those that the ONNX file names.
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
}

impl ModelCommand {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::List { site, json } => list(&Config::load(&site.config)?, json),
            Self::Inspect { what, site, json } => {
                inspect(&what, &Config::load(&site.config)?, json)
            }
            Self::Add { file, site, about, replace } => {
                add(&file, &Config::load(&site.config)?, about, replace)
            }
        }
    }
}

/// Everything that is wrong with the models that a config names, and the good ones.
pub(super) fn check(config: &Config) -> (Vec<String>, Vec<Model>) {
    let (catalog, problems) = match Catalog::survey(&config.models.directory, &config.inference) {
        Ok(found) => found,
        Err(error) => return (vec![error.to_string()], Vec::new()),
    };
    let mut problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    match ModelInspector::find(config.inference.library.as_deref()) {
        Ok(inspector) => {
            let looked = catalog.entries().filter_map(|entry| look_into(&inspector, entry).err());
            problems.extend(looked.map(|error| format!("{error:#}")));
        }
        Err(error) => problems.push(format!("{error:#}")),
    }
    (problems, catalog.models().cloned().collect())
}

/// Inspects a model's file. An error if the file and its description differ.
fn look_into(inspector: &ModelInspector, entry: &CatalogEntry) -> anyhow::Result<Inspection> {
    let CatalogEntry { model, .. } = entry;
    let found = inspector
        .inspect(Path::new(&model.path))
        .with_context(|| format!("model {}", model.name))?;
    match mismatch(model, &found) {
        None => Ok(found),
        Some(difference) => {
            bail!("model {}: {MANIFEST} and {} differ: {difference}", model.name, model.path)
        }
    }
}

fn list(config: &Config, json: bool) -> anyhow::Result<()> {
    let (catalog, problems) = Catalog::survey(&config.models.directory, &config.inference)?;
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    if json {
        let models: Vec<_> = catalog.entries().map(|entry| ModelInfo::new(entry, &[])).collect();
        print_line(&json!({"models": models, "problems": problems}))?;
    } else {
        let heading = ["MODEL", "INPUTS", "DECODER", "LABELS", "DEVICE", "SHA256", "LICENCE"];
        let rows = catalog.entries().map(|CatalogEntry { manifest, model, .. }| {
            let inputs: Vec<_> = model.inputs.iter().map(declared).collect();
            [
                model.name.clone(),
                inputs.join(", "),
                manifest.decoder.as_ref().map_or("-", ModelDecoder::family).to_owned(),
                manifest.labels.len().to_string(),
                model.device.to_string(),
                model.sha256.get(..12).unwrap_or_default().to_owned(),
                manifest.licence.clone(),
            ]
        });
        print_table(&std::iter::once(heading.map(str::to_owned)).chain(rows).collect::<Vec<_>>())?;
    }
    ensure!(problems.is_empty(), "{}", problems.join("\n  "));
    Ok(())
}

fn inspect(what: &str, config: &Config, json: bool) -> anyhow::Result<()> {
    let inspector = ModelInspector::find(config.inference.library.as_deref())?;
    let path = Path::new(what);
    // A name has no slash; a file in the working folder that is called as a model is meant with
    // `./`.
    let (catalog, problems) = match Catalog::survey(&config.models.directory, &config.inference) {
        Ok(found) => found,
        Err(_) if path.is_file() => Default::default(),
        Err(error) => return Err(error.into()),
    };
    let Some(entry) = catalog.get(what) else {
        if path.is_file() {
            let found = (inspector.inspect(path)?, inspector.census(path)?);
            return show(what, &found, None, json);
        }
        let folder = config.models.directory.join(what);
        if !what.contains('/') && folder.join(MANIFEST).is_file() {
            let problem = problems.iter().map(ToString::to_string);
            let own = problem.filter(|problem| problem.contains(&folder.display().to_string()));
            bail!("{}", own.collect::<Vec<_>>().join("\n  "));
        }
        let known: Vec<String> = catalog.names().map(str::to_owned).collect();
        let directory = config.models.directory.display();
        bail!("{what} is neither a file nor a model in {directory}{}", suggestion(what, &known));
    };
    let path = Path::new(&entry.model.path);
    let found = (inspector.inspect(path)?, inspector.census(path)?);
    show(&entry.model.path, &found, Some(entry), json)
}

/// Prints the inspection of a file. An error if the file and its description differ.
fn show(
    file: &str,
    (found, census): &(Inspection, GraphCensus),
    entry: Option<&CatalogEntry>,
    json: bool,
) -> anyhow::Result<()> {
    let difference = entry.and_then(|entry| mismatch(&entry.model, found));
    let doubts = entry.and_then(|entry| entry.manifest.warning());
    if json {
        let model = entry.map(|entry| ModelInfo::new(entry, &[]));
        let mut told =
            json!({"file": file, "model": model, "difference": difference, "doubt": doubts});
        for more in [serde_json::to_value(found)?, serde_json::to_value(census)?] {
            if let (Value::Object(told), Value::Object(more)) = (&mut told, more) {
                told.extend(more);
            }
        }
        print_line(&told)?;
    } else {
        let mut rows = vec![["TENSOR", "NAME", "ELEMENT", "SHAPE"].map(str::to_owned)];
        for (kind, tensors) in [("input", &found.inputs), ("output", &found.outputs)] {
            rows.extend(tensors.iter().map(|tensor| {
                let element = tensor.element.map_or(tensor.kind.as_str(), |element| element.name());
                [kind.into(), tensor.name.clone(), element.into(), format!("{:?}", tensor.shape)]
            }));
        }
        let producer = if found.producer.is_empty() { "unknown" } else { &found.producer };
        let text =
            format!("{file}: {} bytes, sha256 {}, made by {producer}", found.bytes, found.sha256);
        writeln!(std::io::stdout(), "{}", printable(&text))?;
        print_table(&rows)?;
        writeln!(std::io::stdout(), "{}", printable(&census.summary()))?;
        if let Some(entry) = entry {
            show_description(&entry.manifest)?;
            if difference.is_none() {
                writeln!(std::io::stdout(), "{MANIFEST} agrees")?;
            }
        }
        for doubt in doubts.into_iter().chain(census.warning()) {
            writeln!(std::io::stderr(), "ocelli: warning: {doubt}")?;
        }
    }
    match difference {
        None => Ok(()),
        Some(difference) => bail!("{MANIFEST} and {file} differ: {difference}"),
    }
}

/// Prints how `model.toml` has the model run by pipelines that were not written for it.
fn show_description(manifest: &Manifest) -> anyhow::Result<()> {
    let mut lines = Vec::new();
    if let Some(Preprocessing { channels, mean, std, fit, fill }) = &manifest.preprocessing {
        let word = |value: Value| value.as_str().unwrap_or_default().to_owned();
        let (channels, fit) = (word(json!(channels)), word(json!(fit)));
        lines.push(format!(
            "preprocessing: {channels}, {fit}, mean {mean:?}, std {std:?}, fill {fill:?}"
        ));
    }
    if let Some(decoder) = &manifest.decoder {
        let table = serde_json::to_value(decoder)?;
        let keys = table.as_object().into_iter().flatten().filter(|(key, _)| *key != "family");
        let keys: Vec<_> = keys.map(|(key, value)| format!("{key} {value}")).collect();
        lines.push(format!("decoder: {}: {}", decoder.family(), keys.join(", ")));
    }
    let labels = &manifest.labels;
    if !labels.is_empty() {
        let shown = labels.iter().take(LABELS_SHOWN).map(String::as_str).collect::<Vec<_>>();
        let more = if labels.len() > shown.len() { ", ..." } else { "" };
        lines.push(format!("labels: {}: {}{more}", labels.len(), shown.join(", ")));
    }
    lines.extend(manifest.lack().map(|lack| format!("lacks: {lack}")));
    lines.iter().try_for_each(|line| writeln!(std::io::stdout(), "{}", printable(line)))?;
    Ok(())
}

fn add(file: &Path, config: &Config, about: ModelArgs, replace: bool) -> anyhow::Result<()> {
    let name = about.name.clone();
    check_name(&name)?;
    let directory = &config.models.directory;
    let place = directory.join(&name);
    ensure!(
        replace || place.symlink_metadata().is_err(),
        "{} exists: choose another --name, or take its place with --replace",
        place.display()
    );
    let inspector = ModelInspector::find(config.inference.library.as_deref())?;
    let (found, census) = (inspector.inspect(file)?, inspector.census(file)?);
    let manifest = describe(file, &found, about)?;

    std::fs::create_dir_all(directory)
        .with_context(|| format!("making {}", directory.display()))?;
    // Beside its place, so that it gets there in one step; the dot keeps a running host from
    // looking at it.
    let made = tempfile::Builder::new()
        .prefix(".adding-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777))
        .tempdir_in(directory)
        .with_context(|| format!("making a folder in {}", directory.display()))?;
    let graph = made.path().join(FILE);
    std::fs::copy(file, &graph).with_context(|| format!("copying {}", file.display()))?;
    let copied = std::fs::File::open(&graph).and_then(Digest::of_reader);
    let copied = copied.with_context(|| graph.display().to_string())?;
    ensure!(
        copied.to_string() == found.sha256,
        "{} was changed while it was added",
        file.display()
    );
    let text = toml::to_string(&manifest).context("writing the description")?;
    std::fs::write(made.path().join(MANIFEST), text).context("writing the description")?;

    let exchange = replace && place.symlink_metadata().is_ok();
    let how = if exchange { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
    renameat_with(CWD, made.path(), CWD, &place, how)
        .with_context(|| format!("putting the model to {}", place.display()))?;
    if exchange {
        // What was there before lies where the new one was made, and goes with it.
        made.close().with_context(|| "deleting the model that was replaced")?;
    } else {
        // Its folder has another name now.
        let _ = made.keep();
    }
    let (inputs, outputs) = (found.inputs.len(), found.outputs.len());
    println!(
        "{}: added; inputs: {inputs}, outputs: {outputs}, sha256: {}",
        place.display(),
        found.sha256
    );
    if let Some(decoder) = &manifest.decoder {
        let (family, labels) = (decoder.family(), manifest.labels.len());
        println!(
            "decoder: {family}; labels: {labels}; preprocessing: what is usual for {family}, see \
             {MANIFEST}"
        );
    }
    let doubts = manifest.lack().into_iter().chain(census.warning());
    for doubt in doubts.chain(memory_doubt(&manifest, config)) {
        eprintln!("ocelli: warning: {name}: {}", printable(&doubt));
    }
    Ok(())
}

/// Says of a model whose tensors do not fit into a session's memory how much that takes.
fn memory_doubt(manifest: &Manifest, config: &Config) -> Option<String> {
    let needed = tensor_memory(manifest)?;
    let has = config.resource_limits.tensor_memory_mb;
    (needed > has).then(|| {
        format!(
            "its tensors take more than the {has} MiB that a session has: set \
             resource_limits.tensor_memory_mb to {needed}"
        )
    })
}

/// MiB of shared memory that one run of a model takes, inputs and outputs together. `None`: it is
/// known at run time alone.
fn tensor_memory(manifest: &Manifest) -> Option<u32> {
    let bytes = manifest.inputs.iter().chain(&manifest.outputs).map(|tensor| {
        let bytes = tensor.element.bytes(&tensor.fixed_shape()?)?;
        bytes.checked_next_multiple_of(ALIGNMENT)
    });
    let bytes: usize = bytes.sum::<Option<usize>>()?;
    u32::try_from(bytes.div_ceil(1 << 20)).ok()
}

fn check_name(name: &str) -> anyhow::Result<()> {
    let good = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
    let begins_well = name.starts_with(|character: char| character.is_ascii_alphanumeric());
    ensure!(
        begins_well && name.len() <= 100 && name.chars().all(good),
        "--name {name:?}: a model's name has {NAME}"
    );
    Ok(())
}

/// Makes a file's description from its inspection and the arguments.
fn describe(file: &Path, found: &Inspection, about: ModelArgs) -> anyhow::Result<Manifest> {
    let tensors = |kind: &str, tensors: &[GraphTensor]| {
        let declared = tensors.iter().map(|GraphTensor { name, element, kind: found, shape }| {
            let element = element.with_context(|| {
                format!(
                    "{}: {kind} {name:?} is {found}, which no pipeline can pass",
                    file.display()
                )
            })?;
            Ok(TensorDeclaration { name: name.clone(), element, shape: shape.clone() })
        });
        declared.collect::<anyhow::Result<Vec<_>>>()
    };
    let labels = match &about.labels {
        None => None,
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            Some(label_lines(&text))
        }
    };
    let mut inputs = tensors("input", &found.inputs)?;
    let outputs = tensors("output", &found.outputs)?;
    let Recognised { decoder, preprocessing, labels } =
        recognise(&mut inputs, &outputs, &found.metadata, labels);
    let source = about.source.unwrap_or_else(|| {
        file.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    });
    let manifest = Manifest {
        name: about.name,
        description: about.description,
        file: FILE.to_owned(),
        sha256: found.sha256.clone(),
        licence: about.licence,
        source,
        labels,
        inputs,
        outputs,
        embedding: None,
        preprocessing,
        decoder,
    };
    match manifest.problem(&manifest.name) {
        None => Ok(manifest),
        Some(problem) => bail!("{}: {problem}", file.display()),
    }
}

/// The labels of a file that has one in each line. Editors of Windows begin it with a byte order
/// mark and end its lines with a carriage return, neither of which is part of a label.
fn label_lines(text: &str) -> Vec<String> {
    let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
    lines.filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

fn declared(tensor: &TensorDeclaration) -> String {
    format!("{} {} {:?}", tensor.name, tensor.element.name(), tensor.shape)
}

fn print_line(value: &Value) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{value}")?)
}

fn print_table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> anyhow::Result<()> {
    let lines = lines(rows, Look::stdout());
    Ok(lines.iter().try_for_each(|line| writeln!(std::io::stdout(), "{line}"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_models_tensors_is_known_where_their_sides_are() {
        let tensor = |shape: &[i64]| {
            let shape = shape.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
            format!("[{{ name = \"x\", element = \"f32\", shape = [{shape}] }}]")
        };
        let memory = |input: &[i64], output: &[i64]| {
            let text = format!(
                "name = \"y\"\ndescription = \"\"\nfile = \"m\"\nsha256 = \"\"\nlicence = \"\"\n\
                 source = \"\"\ninputs = {}\noutputs = {}\n",
                tensor(input),
                tensor(output)
            );
            tensor_memory(&toml::from_str(&text).unwrap())
        };
        // YOLOv5: 4.9 MB and 8.6 MB.
        assert_eq!(memory(&[1, 3, 640, 640], &[1, 25200, 85]), Some(13));
        assert_eq!(memory(&[1, 3, 416, 416], &[1, 3549, 112]), Some(4));
        assert_eq!(memory(&[1, 3, -1, -1], &[1, 2]), None);
    }

    #[test]
    fn a_label_file_of_any_editor_has_the_labels_alone() {
        for text in
            ["car\nold bus\n", "\u{feff}car\r\nold bus", "\u{feff}\u{feff} car \r\n\r\nold bus\r\n"]
        {
            assert_eq!(label_lines(text), ["car", "old bus"], "{text:?}");
        }
    }
}
