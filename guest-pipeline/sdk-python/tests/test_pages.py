"""The pipelines of `docs/pipelines-in-python.md` run."""

import pathlib
import re
import sys
import types
import unittest

from ocelli_sdk import CameraPipeline, tensor_spec
from ocelli_sdk.testing import FakeFrame, FakeHost, Played, described

PAGE = pathlib.Path(__file__).parents[3] / "docs/pipelines-in-python.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def pipelines():
    """The classes of the page; a block may use what those before it have."""
    module = types.ModuleType("page")
    # A dataclass looks its module up.
    sys.modules["page"] = module
    for block in BLOCK.findall(PAGE.read_text()):
        if "FakeHost" not in block:
            exec(compile(block, str(PAGE), "exec"), module.__dict__)
    made = vars(module).values()
    return {one.name: one for one in made if isinstance(one, type) and is_own(one)}


def is_own(cls):
    return issubclass(cls, CameraPipeline) and cls is not CameraPipeline


def person(_):
    """A person of NanoDet's, whose foot is in the lower half of a frame of 320 x 320 pixels."""
    outputs = {}
    for stride in (8, 16, 32):
        cells = (320 // stride) ** 2
        scores, sides = [0.0] * cells * 80, [-50.0] * cells * 44
        if stride == 32:
            # Column 4 and line 6: about (144, 208), a stride to each side.
            cell = 6 * 10 + 4
            scores[cell * 80] = 0.9
            for side in range(4):
                sides[cell * 44 + side * 11 + 1] = 50.0
        outputs[f"cls_s{stride}"] = ((1, cells, 80), scores)
        outputs[f"reg_s{stride}"] = ((1, cells, 44), sides)
    return outputs


NANODET = {"family": "nanodet", "classes": 80, "strides": [8, 16, 32], "bins": 11, "point": 0.5}
NANODET["scores"] = [f"cls_s{stride}" for stride in NANODET["strides"]]
NANODET["sides"] = [f"reg_s{stride}" for stride in NANODET["strides"]]
CLASSIFIER = {"family": "classifier", "output": "logits", "activation": "softmax"}


def host():
    """A host with the models of the page."""
    eye = [0.0] * 84 * 2
    for row, value in enumerate([320, 320, 100, 50, 0, 0.8]):
        eye[row * 2 + 1] = value
    models = {
        "nanodet-g-320-int8": person,
        "brands": lambda _: {"logits": ((1, 2), [0.0, 2.0])},
        "reid": lambda _: {"output": ((1, 3), [0.0, 3.0, 4.0])},
        "eye": lambda _: {"output0": ((1, 84, 2), eye)},
    }
    labels = ["person"] + ["other"] * 79
    descriptions = {
        "nanodet-g-320-int8": described(NANODET, tensor_spec(320, 320), labels),
        "brands": described(CLASSIFIER, tensor_spec(224, 224), ["audi", "bmw"]),
    }
    # Of the page's pipelines only `Held` asks.
    return FakeHost(models, descriptions, budget=[True, False, False])


class Page(unittest.TestCase):
    def test_each_pipeline_does_what_the_page_says(self):
        classes = pipelines()
        frames = [FakeFrame(n, 320, 320, seconds=n / 2) for n in range(4)]
        played, outputs = {}, {}
        with host():
            for name, cls in classes.items():
                played[name] = Played(cls)
                outputs[name] = [played[name].process(frame) for frame in frames]
                if name == "alike":
                    played[name].command()
                    outputs[name].append(played[name].process(frames[-1]))
            query = played["count"].query()
        names = "gate follow held count loiter brands alike own pictures"
        self.assertEqual(list(classes), names.split())
        followed = outputs["follow"][-1].detections
        self.assertEqual([(one.label, one.track) for one in followed], [("person", 1)])
        sources = [output.basis.source.name for output in outputs["held"]]
        self.assertEqual(sources, ["MODEL", "PREDICTED", "PREDICTED", "MODEL"])
        self.assertEqual([output.basis.model_age for output in outputs["held"]][2], 10**9)
        self.assertEqual([len(output.detections) for output in outputs["held"]], [1] * 4)
        kinds = {name: [e.kind for o in made for e in o.events] for name, made in outputs.items()}
        self.assertEqual(kinds["count"], ["entered"])
        self.assertEqual(query, {"entered": 2, "left": 0}, "counts of `count` and `loiter`")
        self.assertEqual(kinds["pictures"], ["first"])
        (brand,) = outputs["brands"][0].detections[0].attributes
        self.assertEqual((brand.name, brand.value), ("brand", "bmw"))
        self.assertAlmostEqual(brand.score, 0.8808, places=4)
        alike = outputs["alike"][-1].detections[0]
        self.assertAlmostEqual(alike.attributes[0].score, 1.0)
        self.assertAlmostEqual(sum(x * x for x in alike.embedding), 1.0)
        (own,) = outputs["own"][0].detections
        self.assertEqual((own.label, round(own.box.width)), ("1", 50))


if __name__ == "__main__":
    unittest.main()
