"""A build that cannot be is refused in one line, and leaves what is there."""

import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

SDK = pathlib.Path(__file__).resolve().parent.parent


class Build(unittest.TestCase):
    def refused(self, folder, *arguments):
        ended = subprocess.run(
            [sys.executable, "-B", "-m", "ocelli_sdk.build", *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(SDK)},
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual((ended.returncode, ended.stdout), (1, ""), ended.stderr)
        self.assertEqual(ended.stderr.count("\n"), 1, ended.stderr)
        return ended.stderr

    def test_a_module_that_is_not_there(self):
        with tempfile.TemporaryDirectory() as folder:
            self.assertIn("there is no src/app.py", self.refused(folder))
            self.assertEqual(os.listdir(folder), [])

    def test_a_compiler_that_is_not_there_or_is_another(self):
        with tempfile.TemporaryDirectory() as folder:
            source = pathlib.Path(folder, "src")
            source.mkdir()
            (source / "app.py").write_text("this is no Python\n")
            before = pathlib.Path(folder, "old.wasm")
            before.write_text("old")
            said = self.refused(folder, "--output", "old.wasm")
            self.assertIn("pip install componentize-py==", said)
            self.assertEqual(before.read_text(), "old")


if __name__ == "__main__":
    unittest.main()
