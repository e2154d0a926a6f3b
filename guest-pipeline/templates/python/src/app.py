"""Finds what is bright in the picture, and tells when it comes into view."""

from dataclasses import dataclass

from ocelli_sdk import Box, CameraPipeline, Detection, Event, Output, export, log, setting

WIDTH, HEIGHT = 320, 180
"""Columns and rows of the small grey picture that the host makes of each frame."""


@dataclass
class Settings:
    """What an operator may set for a camera."""

    above: int = setting(
        128, minimum=1, maximum=255, about="Grey, up to 255, from which on a pixel is bright"
    )


class Bright(CameraPipeline):
    """The pipeline of one camera."""

    name = "{{name}}"
    version = "0.1.0"
    Settings = Settings

    def init(self, settings):
        # With this table, `translate` makes 1 of each bright pixel and 0 of each other: a loop over
        # the pixels would take a hundred times as long.
        self.table = bytes(int(grey >= settings.above) for grey in range(256))
        self.in_view = False

    def process(self, frame):
        edges = bright(frame.luma(WIDTH, HEIGHT).translate(self.table))
        found = []
        if edges is not None:
            left, top, right, bottom = edges
            across, down = frame.width / WIDTH, frame.height / HEIGHT
            box = Box(left * across, top * down, right * across, bottom * down)
            found = [Detection("bright", 1.0, box)]
        came = bool(found) and not self.in_view
        self.in_view = bool(found)
        if not came:
            return found
        log.info(f"something came into view at frame {frame.index}")
        return Output(found, [Event("appeared", found)])

    def snapshot(self):
        """Whether something is in view: the next version does not report it again."""
        return {"in_view": self.in_view}

    def restore(self, state, format):
        self.in_view = bool(state["in_view"])


def bright(marks):
    """The least box around all pixels that are 1: left, top, and the first column right of it and
    row below it. None where there is none."""
    first = marks.find(1)
    if first < 0:
        return None
    top, bottom = first // WIDTH, marks.rfind(1) // WIDTH + 1
    rows = [marks[y * WIDTH : (y + 1) * WIDTH] for y in range(top, bottom)]
    left = min(place for row in rows if (place := row.find(1)) >= 0)
    right = max(row.rfind(1) for row in rows) + 1
    return left, top, right, bottom


Pipeline = export(Bright)
