"""What a class becomes: kept, guarded, and with nothing left open."""

import json
import unittest
from dataclasses import dataclass

from ocelli_sdk import (
    Basis,
    Box,
    CameraPipeline,
    Detection,
    Event,
    Model,
    Output,
    PipelineError,
    Source,
    Tensor,
    budget,
    export,
    nanodet,
    setting,
    tensor_spec,
    yolo,
)
from ocelli_sdk.testing import FakeFrame, FakeHost, Played, play


@dataclass
class Settings:
    fail_at: int = setting(-1, minimum=-1)


class Counter(CameraPipeline):
    name = "counter"
    version = "1.0.0"
    Settings = Settings
    state_formats = (1, 2)

    def init(self, settings):
        self.fail_at, self.seen = settings.fail_at, 0

    def process(self, frame):
        self.seen += 1
        self.deeper(frame)
        box = Box.of(0, 0, frame.width, frame.height)
        return [Detection("all", 1.0, box, track=self.seen)]

    def deeper(self, frame):
        if frame.index == self.fail_at:
            raise ValueError("as asked")

    def query(self, request):
        return {"seen": self.seen, "asked": request}

    def command(self, request):
        self.seen = request["seen"]

    def snapshot(self):
        return {"seen": self.seen}

    def restore(self, state, format):
        self.seen = state["seen"] if format == 2 else state["count"]


class Kept(unittest.TestCase):
    def test_attributes_of_init_are_there_in_process(self):
        outputs = play(Counter, [FakeFrame(n) for n in range(3)])
        self.assertEqual([output.detections[0].track for output in outputs], [1, 2, 3])

    def test_each_export_keeps_one_instance_for_new_objects(self):
        exported = export(Counter)
        exported().init("{}")
        exported().process(FakeFrame(0))
        self.assertEqual(json.loads(exported().query("null")), {"seen": 1, "asked": None})

    def test_state_goes_to_the_next_version(self):
        old, new = Played(Counter), Played(Counter)
        old.process(FakeFrame(0))
        new.restore(old.snapshot())
        self.assertEqual(new.query(7), {"seen": 1, "asked": 7})
        new.restore(b'{"format": 1, "state": {"count": 40}}')
        self.assertEqual(new.query()["seen"], 40)

    def test_a_state_of_no_known_format_is_refused_in_words(self):
        pipeline = Played(Counter)
        refusal = "version 0.0.1 has format 3; this one reads 1, 2"
        with self.assertRaisesRegex(PipelineError, refusal):
            pipeline.restore(b'{"format": 3, "state": 0}')
        for wrong in (b"\xff", b"[]", b"{}", b"17"):
            with self.assertRaisesRegex(PipelineError, "of another kind"):
                pipeline.restore(wrong)

    def test_a_pipeline_without_state_gives_no_bytes(self):
        class Plain(Counter):
            def snapshot(self):
                return None

        self.assertEqual(Played(Plain).snapshot(), b"")


class Guarded(unittest.TestCase):
    def test_an_exception_is_an_error_with_its_text_and_its_place(self):
        pipeline = Played(Counter, {"fail_at": 1})
        pipeline.process(FakeFrame(0))
        with self.assertRaises(PipelineError) as caught:
            pipeline.process(FakeFrame(1))
        lines = str(caught.exception).split("\n")
        self.assertEqual(lines[0], "ValueError: as asked")
        self.assertRegex(lines[1], r"^  in deeper, .*test_pipeline.py:\d+$")
        self.assertRegex(lines[2], r"^  in process, ")
        self.assertEqual(pipeline.process(FakeFrame(2)).detections[0].track, 3)

    def test_settings_and_refusals_have_no_traceback(self):
        with self.assertRaises(PipelineError) as caught:
            Played(Counter, {"fail_at": "never"})
        self.assertEqual(str(caught.exception), 'settings.fail_at: "never" is not an integer')

        class Quiet(Counter):
            query = CameraPipeline.query

        with self.assertRaisesRegex(PipelineError, "^counter answers no queries$"):
            Played(Quiet).query()

    def test_a_missing_key_of_a_state_is_an_error_and_no_trap(self):
        with self.assertRaisesRegex(PipelineError, "^KeyError: 'seen'"):
            Played(Counter).restore(b'{"format": 2, "state": {}}')

    def test_a_snapshot_that_fails_is_logged_and_empty(self):
        class Broken(Counter):
            def snapshot(self):
                raise RuntimeError("no state today")

        with FakeHost() as host:
            self.assertEqual(Played(Broken).snapshot(), b"")
            self.assertIn("no snapshot: RuntimeError: no state today", host.lines[0][1])

    def test_calls_before_init_are_errors(self):
        exported = export(Counter)()
        with self.assertRaises(Exception) as caught:
            exported.process(FakeFrame(0))
        self.assertEqual(caught.exception.value, "process was called before init")
        self.assertEqual(exported.snapshot(), b"")

    def test_numbers_that_are_not_finite_are_an_error_before_the_host_sees_them(self):
        class Bad(Counter):
            def process(self, frame):
                return [Detection("x", float("nan"), Box.of(0, 0, 1, 1))]

        with self.assertRaisesRegex(PipelineError, "not finite"):
            play(Bad, [FakeFrame()])

    def test_a_class_without_a_name_is_refused_at_once(self):
        class Nameless(CameraPipeline):
            version = "1.0.0"

        with self.assertRaisesRegex(TypeError, "Nameless.name"):
            export(Nameless)


def _flat(inputs):
    return {"out": ((1, 2, 3), [0.1, 0.9, 0.0, 0.2, 0.3, 0.4])}


class Closed(unittest.TestCase):
    """`FakeHost` fails at its end for each handle that is open, and for one given back twice."""

    def test_tensors_outputs_and_pictures_are_given_back(self):
        class Leaky(Counter):
            def init(self, settings):
                self.model = Model("flat")

            def process(self, frame):
                tensor, _ = frame.tensor(tensor_spec(8, 8))
                out = self.model.run({"in": tensor})["out"]
                hits = out.best(0.35)
                self.best = [(hit.row, hit.class_) for hit in hits]
                frame.image(longest=320)
                event = Event("seen", data={"best": self.best}, attachments=[frame.image()])
                return Output([], [event])

        with FakeHost({"flat": _flat}):
            (output,) = play(Leaky, [FakeFrame()])
            self.assertEqual(output.events[0].data, '{"best": [[0, 1], [1, 2]]}')

    def test_they_are_given_back_after_an_exception_too(self):
        class Failing(Counter):
            def process(self, frame):
                frame.tensor(tensor_spec(8, 8))
                raise RuntimeError("in the middle")

        with FakeHost():
            pipeline = Played(Failing)
            for n in range(3):
                with self.assertRaises(PipelineError):
                    pipeline.process(FakeFrame(n))

    def test_a_tensor_is_consumed_once_and_says_so(self):
        class Twice(Counter):
            def process(self, frame):
                model = Model("flat")
                tensor, _ = frame.tensor(tensor_spec(8, 8))
                model.run({"in": tensor})
                model.run({"in": tensor})

        with FakeHost({"flat": _flat}):
            with self.assertRaisesRegex(PipelineError, "this tensor has been given back"):
                play(Twice, [FakeFrame()])

    def test_what_is_kept_outlives_the_call(self):
        class Keeping(Counter):
            kept: Tensor

            def process(self, frame):
                if frame.index == 0:
                    self.kept, _ = frame.tensor(tensor_spec(8, 8))
                    self.kept.keep()
                else:
                    self.seen = self.kept.dimensions
                    self.kept.close()

        with FakeHost():
            pipeline = Played(Keeping)
            pipeline.process(FakeFrame(0))
            pipeline.process(FakeFrame(1))
            self.assertEqual(pipeline.query()["seen"], [1, 3, 8, 8])

    def test_an_unknown_model_is_an_error_by_name(self):
        class NoModel(Counter):
            def init(self, settings):
                Model("flatt")

        refusal = "^model 'flatt': refused: not-found"
        with FakeHost(), self.assertRaisesRegex(PipelineError, refusal):
            Played(NoModel)


class Detecting(unittest.TestCase):
    def test_nanodet_gives_the_box_worked_out_by_hand(self):
        def script(inputs):
            outputs = {}
            for stride in nanodet.STRIDES:
                cells = (64 // stride) ** 2
                scores, sides = [0.0] * cells * 80, [-50.0] * cells * 44
                if stride == 16:
                    # Cell 1 of 4 x 4: its centre is (24, 8). Every distance is one stride.
                    scores[80 + 2] = 0.9
                    for side in range(4):
                        sides[44 + side * 11 + 1] = 50.0
                outputs[f"cls_s{stride}"] = ((1, cells, 80), scores)
                outputs[f"reg_s{stride}"] = ((1, cells, 44), sides)
            return outputs

        class Cars(Counter):
            def init(self, settings):
                self.detector = nanodet.Detector("small", 64)

            def process(self, frame):
                found = self.detector.detect(frame)
                return [Detection(nanodet.LABELS[one.class_], one.score, one.box) for one in found]

        with FakeHost({"small": script}):
            # 128 x 64 pixels at half size, with 16 rows of black above: (8..40) by (-8..24) of the
            # tensor is (16..80) by (-48..16) of the frame.
            (output,) = play(Cars, [FakeFrame(width=128, height=64)])
        (car,) = output.detections
        rect = car.box
        self.assertEqual((car.label, len(nanodet.LABELS)), ("car", 80))
        for got, want in zip((rect.x, rect.y, rect.width, rect.height), (16, 0, 64, 16)):
            self.assertAlmostEqual(got, want, places=3)

    def test_a_frame_says_what_moves_and_where_points_go(self):
        seen = []

        class Moving(Counter):
            def process(self, frame):
                motion = frame.motion()
                boxes = [box.left for box in motion.regions]
                seen.append((boxes, motion.calibrating, frame.flow([(5.0, 6.0), (90.0, 6.0)])))
                return []

        def flow(x, y):
            return (x + 2, y) if x < 50 else None

        moving = [Box.of(1, 0, 4, 4), Box.of(9, 0, 8, 8)]
        script = [FakeFrame(), FakeFrame(1, moving=moving, flow=flow), FakeFrame(2, moving=None)]
        with FakeHost():
            play(Moving, script)
        stay = [(5.0, 6.0), (90.0, 6.0)]
        wanted = [([], False, stay), ([9, 1], False, [(7.0, 6.0), None]), ([], True, stay)]
        self.assertEqual(seen, wanted)

    def test_a_budget_is_asked_and_says_yes_after_the_last_answer(self):
        class Thrifty(Counter):
            def process(self, frame):
                source = Source.MODEL if budget.ask(frame.index / 4) else Source.PREDICTED
                return Output([], basis=Basis(source, 0))

        with FakeHost(budget=[False, True]) as host:
            outputs = play(Thrifty, [FakeFrame(n) for n in range(3)])
        sources = [output.basis.source for output in outputs]
        self.assertEqual(sources, [Source.PREDICTED, Source.MODEL, Source.MODEL])
        self.assertEqual(host.wants, [0, 0.25, 0.5])

    def test_a_budget_that_is_asked_for_nothing_is_an_error_of_the_pipeline(self):
        class Careless(Counter):
            def process(self, frame):
                return [] if budget.ask(None) else None

        with FakeHost(), self.assertRaisesRegex(PipelineError, "TypeError"):
            play(Careless, [FakeFrame()])

    def test_each_form_of_yolo_gives_the_same_boxes(self):
        # In a tensor of 64 x 64 pixels: a box about (32, 32) of 16 x 8, class 1 of 3, score 0.72;
        # one that overlaps it and is worse; and one that is too low.
        rows = [(32, 32, 16, 8, 0.72), (33, 32, 16, 8, 0.6), (10, 10, 4, 4, 0.1)]
        wide = [[x, y, w, h, s / 0.9, 0.0, 0.9, 0.1] for x, y, w, h, s in rows]
        tall = [[x, y, w, h, 0.0, s, 0.1] for x, y, w, h, s in rows]
        edges = [[x - w / 2, y - h / 2, x + w / 2, y + h / 2, s, 1.0] for x, y, w, h, s in rows]
        forms = {
            "yolov5": ((1, 3, 8), sum(wide, [])),
            "yolov8": ((1, 7, 3), [value for column in zip(*tall) for value in column]),
            # Suppressed by the model: the second row is empty.
            "yolov10": ((1, 3, 6), edges[0] + [0, 0, 0, 0, 0, -1] + edges[2]),
        }

        class Yolo(Counter):
            def init(self, settings):
                self.detectors = [yolo.Detector(form, 64, form, classes=3) for form in forms]

            def process(self, frame):
                found = [detector.detect(frame) for detector in self.detectors]
                return [Detection(str(one.class_), one.score, one.box) for one in sum(found, [])]

        def script(output):
            return lambda _: {"output0": output}

        scripts = {form: script(output) for form, output in forms.items()}
        with FakeHost(scripts):
            # 128 x 128 pixels at half size.
            (output,) = play(Yolo, [FakeFrame(width=128, height=128)])
        self.assertEqual([one.label for one in output.detections], ["1", "1", "1"])
        for one in output.detections:
            self.assertAlmostEqual(one.score, 0.72, places=5)
            rect = one.box
            self.assertEqual((rect.x, rect.y, rect.width, rect.height), (48, 56, 32, 16))

    def test_a_form_that_is_not_known_is_refused(self):
        with self.assertRaisesRegex(ValueError, "yolov9.* none of yolov8, yolov5, yolov10"):
            yolo.Detector("any", form="yolov9")


if __name__ == "__main__":
    unittest.main()
