"""Makes the component: `python -m ocelli_sdk.build app --path src --output build/NAME.wasm`.

It runs componentize-py of the one version that this SDK is tried with.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import subprocess
import sys
import sysconfig

COMPONENTIZE = "0.25.1"
"""The version of componentize-py that this SDK is tried with."""

WORLD = "camera-pipeline"
HERE = pathlib.Path(__file__).resolve().parent


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m ocelli_sdk.build", description=__doc__)
    parser.add_argument("module", nargs="?", default="app", help="the module that has Pipeline")
    parser.add_argument("--path", default="src", help="the folder of the module")
    parser.add_argument("--output", default="build/pipeline.wasm", type=pathlib.Path)
    parser.add_argument("--wit", default=HERE / "wit", type=pathlib.Path, help="another contract")
    given = parser.parse_args()
    if not (pathlib.Path(given.path) / f"{given.module}.py").is_file():
        return _refuse(f"there is no {given.path}/{given.module}.py")
    program = pathlib.Path(sysconfig.get_path("scripts")) / "componentize-py"
    wanted = f"python -m pip install componentize-py=={COMPONENTIZE}"
    try:
        version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return _refuse(f"componentize-py is not installed: {wanted}")
    if version.stdout.split()[-1:] != [COMPONENTIZE]:
        return _refuse(f"this SDK builds with componentize-py {COMPONENTIZE}: {wanted}")
    given.output.parent.mkdir(parents=True, exist_ok=True)
    # Made beside it first: a build that fails leaves the last component as it is.
    made = given.output.with_suffix(".part")
    command = [program, "-q", "-d", given.wit, "-w", WORLD, "componentize", given.module]
    command += ["-p", given.path, "-p", HERE.parent, "-o", made]
    ended = subprocess.run(list(map(str, command)), check=False).returncode
    if ended:
        made.unlink(missing_ok=True)
        return _refuse("componentize-py failed; what it says is above")
    os.replace(made, given.output)
    return 0


def _refuse(text: str) -> int:
    print(f"ocelli_sdk.build: {text}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
