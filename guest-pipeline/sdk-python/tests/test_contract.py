"""The types that stand in for the bindings are those of the WIT."""

import dataclasses
import enum
import pathlib
import re
import unittest

from ocelli_sdk import _native, build

RECORD = re.compile(r"^  (record|enum) ([\w-]+) \{(.*?)\}", re.DOTALL | re.MULTILINE)


def _declared():
    for path in sorted((build.HERE / "wit").rglob("*.wit")):
        text = re.sub(r"//[^\n]*", "", path.read_text())
        for kind, name, body in RECORD.findall(text):
            items = [item.strip() for item in body.split(",")] if kind == "enum" else None
            fields = items or re.findall(r"(?:^|[,\n])\s*%?([\w-]+):", body)
            yield kind, name, [field.lstrip("%") for field in fields if field]


class Contract(unittest.TestCase):
    def test_records_and_enums_have_the_fields_of_the_wit(self):
        seen = []
        for kind, name, fields in _declared():
            ours = getattr(_native, name.title().replace("-", ""), None)
            if ours is None:
                continue
            seen.append(name)
            if kind == "enum":
                self.assertTrue(issubclass(ours, enum.Enum), name)
                wanted = [field.upper().replace("-", "_") for field in fields]
                self.assertEqual([member.name for member in ours], wanted, name)
                self.assertEqual([member.value for member in ours], list(range(len(wanted))))
            else:
                wanted = [field.replace("-", "_") for field in fields]
                wanted = ["class_" if field == "class" else field for field in wanted]
                got = [field.name for field in dataclasses.fields(ours)]
                self.assertEqual(got, wanted, name)
        for name in ("rect", "tensor-spec", "detection", "description", "fit", "level"):
            self.assertIn(name, seen)

    def test_the_package_has_one_version_of_its_tool(self):
        project = pathlib.Path(__file__).parent.parent / "pyproject.toml"
        self.assertIn(f'"componentize-py=={build.COMPONENTIZE}"', project.read_text())


if __name__ == "__main__":
    unittest.main()
