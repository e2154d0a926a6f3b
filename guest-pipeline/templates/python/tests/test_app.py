"""The pipeline without a host: frames are scripted."""

import unittest

from app import HEIGHT, WIDTH, Bright
from ocelli_sdk import PipelineError
from ocelli_sdk.testing import FakeFrame, FakeHost, Played, play


def picture(*pixels):
    """A dark picture in which these pixels are bright."""
    grey = bytearray([20] * WIDTH * HEIGHT)
    for x, y in pixels:
        grey[y * WIDTH + x] = 250
    return bytes(grey)


class BrightTest(unittest.TestCase):
    def test_the_box_is_around_all_that_is_bright(self):
        with FakeHost():
            dark, light = play(
                Bright,
                [FakeFrame(0, luma=picture()), FakeFrame(1, luma=picture((10, 20), (13, 25)))],
            )
        self.assertEqual(dark.detections, [])
        box = light.detections[0].box
        # The frame is twice as wide and high as the grey picture.
        self.assertEqual((box.x, box.y, box.width, box.height), (20, 40, 8, 12))
        self.assertEqual([event.kind for event in light.events], ["appeared"])

    def test_settings_are_checked(self):
        with self.assertRaisesRegex(PipelineError, "settings.above: 300 is more than 255"):
            Played(Bright, {"above": 300})

    def test_the_next_version_does_not_report_it_again(self):
        with FakeHost():
            old, new = Played(Bright), Played(Bright)
            frame = FakeFrame(luma=picture((1, 1)))
            old.process(frame)
            new.restore(old.snapshot())
            self.assertEqual(new.process(frame).events, [])


if __name__ == "__main__":
    unittest.main()
