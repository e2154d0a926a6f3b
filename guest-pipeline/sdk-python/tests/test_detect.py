"""Detectors by the host's description: the same objects in each family's form."""

import json
import math
import pathlib
import unittest

from ocelli_sdk import (
    CameraPipeline,
    Classifier,
    Detection,
    Detector,
    PipelineError,
    boxes,
    classify,
    cosine,
    models,
    tensor_spec,
    unit,
)
from ocelli_sdk.testing import FakeFrame, FakeHost, described, play

SHARED = pathlib.Path(__file__).parents[3] / "tests/golden/families.json"
"""What the tests of all SDKs read."""


def output(tensor):
    """A scripted output: shape, numbers, type."""
    if "values" in tensor:
        values = tensor["values"]
    else:
        rows, columns = tensor["shape"][-2:]
        values = [0.0] * rows * columns
        for row, numbers in tensor["rows"].items():
            values[int(row) * columns : (int(row) + 1) * columns] = numbers
    return tensor["shape"], values, tensor.get("type", "FP32")


class Finder(CameraPipeline):
    """Finds what a described detector finds."""

    name, version = "finder", "1.0.0"
    score, classes = 0.4, None

    def init(self, settings):
        self.detector = Detector(settings.get("model", "eye"))

    def process(self, frame):
        found = self.detector.detect(frame, self.score, classes=self.classes)
        return [Detection(self.detector.label(one.class_), one.score, one.box) for one in found]


class Described(unittest.TestCase):
    def test_each_family_gives_the_same_boxes(self):
        shared = json.loads(SHARED.read_text())
        width, height = shared["size"]
        families = set()
        for case in shared["cases"]:
            families.add(case["decoder"]["family"])
            with self.subTest(case["name"]):
                outputs = {name: output(tensor) for name, tensor in case["outputs"].items()}
                inputs = []

                def script(given):
                    inputs.append({name: list(tensor.shape) for name, tensor in given.items()})
                    return outputs

                known = described(case["decoder"], tensor_spec(width, height), ["a", "b", "c"])
                with FakeHost({"eye": script}, {"eye": known}):
                    # The frame is twice as wide and high as the input.
                    frame = FakeFrame(width=2 * width, height=2 * height)
                    (found,) = play(Finder, [frame])
                    (only,) = play(type("Only", (Finder,), {"classes": {0}}), [frame])
                self.assertEqual([one.label for one in only.detections], ["a"])
                self.assertEqual(len(found.detections), len(shared["expected"]))
                for one, wanted in zip(found.detections, shared["expected"]):
                    self.assertEqual(one.label, "abc"[wanted["class"]])
                    self.assertAlmostEqual(one.score, wanted["score"], places=3)
                    rect = one.box
                    box = boxes.Box.of(rect.x, rect.y, rect.width, rect.height)
                    got = (box.left, box.top, box.right, box.bottom)
                    for edge, right in zip(got, wanted["box"]):
                        self.assertAlmostEqual(edge, 2 * right, delta=0.02)
                sizes = case["decoder"].get("sizes")
                self.assertEqual(inputs[0].get(sizes), [1, 2] if sizes else None)
        self.assertEqual(len(families), 7)

    def test_a_model_that_is_not_described_is_refused_with_what_it_lacks(self):
        spec = tensor_spec(8, 8)
        table = {"family": "yolov10", "output": "rows"}
        for known, words in [
            (described(), "no .decoder."),
            (described(table), "no .preprocessing."),
            (described({"family": "yolov99"}, spec), "yolov99.* knows yolov5, yolov8"),
            (described({"family": "classifier"}, spec), "classifier"),
        ]:
            with FakeHost({"eye": None}, {"eye": known}):
                with self.assertRaisesRegex(PipelineError, f"^model eye: .*{words}"):
                    Detector("eye")
        with FakeHost({"eye": None}), self.assertRaisesRegex(PipelineError, "it has: eye"):
            models.describe("eyes")

    def test_outputs_that_do_not_fit_are_an_error_with_the_models_name(self):
        table = {"family": "yolox", "output": "out", "classes": 3, "strides": [8, 16]}
        for script, words in [
            (lambda _: {"out": ((1, 7, 8), [0.0] * 56)}, "7 rows; strides .8, 16. of 16 x 16"),
            (lambda _: {"other": ((1, 1, 8), [0.0] * 8)}, "no output 'out', but other"),
        ]:
            with FakeHost({"eye": script}, {"eye": described(table, tensor_spec(16, 16))}):
                with self.assertRaisesRegex(PipelineError, f"^model eye: its? .*{words}"):
                    play(Finder, [FakeFrame()])

    def test_a_description_has_types(self):
        table = {"family": "yolov8", "output": "o", "classes": 1}
        with FakeHost(None, {"eye": described(table, tensor_spec(64, 32), ["cat"], "images")}):
            known = models.describe("eye")
        self.assertEqual((known.family, known.decoder["output"]), ("yolov8", "o"))
        self.assertEqual((known.picture.name, known.picture.spec.width), ("images", 64))

    def test_classes_by_their_labels(self):
        table = {"family": "yolov10", "output": "o"}
        known = described(table, tensor_spec(8, 8), ["person", "car"])
        with FakeHost({"eye": None}, {"eye": known}):
            detector = Detector("eye")
        self.assertEqual(detector.classes(["car"]), {1})
        self.assertIsNone(detector.classes([]))
        self.assertEqual(detector.label(7), "class 7")
        wrong = r"^settings.labels.1.: no label 'persn'; there are person, car"
        with self.assertRaisesRegex(PipelineError, wrong):
            detector.classes(["car", "persn"])

    def test_classes_and_their_scores(self):
        found = classify.classes([math.log(1), math.log(6), math.log(3)])
        self.assertEqual([one for one, _ in found], [1, 2, 0])
        self.assertAlmostEqual(found[0][1], 0.6)
        self.assertEqual(classify.classes([-1e9, 0.0], "sigmoid")[0], (1, 0.5))
        self.assertEqual(classify.classes([0.1, 0.9, 0.9], "none")[0], (1, 0.9))
        with self.assertRaisesRegex(PipelineError, "not finite"):
            classify.classes([math.nan])
        with FakeHost({"eye": None}, {"eye": described({"family": "yolov10", "output": "o"})}):
            with self.assertRaisesRegex(PipelineError, "no classifier"):
                Classifier("eye")

    def test_how_alike_vectors_are(self):
        self.assertEqual(cosine([1, 0], [0, 3]), 0)
        self.assertAlmostEqual(cosine([1, 1], [-2, -2]), -1)
        self.assertEqual(unit([3, 4]), [0.6, 0.8])
        for one, other in [([0, 0], [1, 1]), ([math.nan], [1]), ([1], [1, 0])]:
            with self.assertRaises(PipelineError):
                cosine(one, other)


if __name__ == "__main__":
    unittest.main()
