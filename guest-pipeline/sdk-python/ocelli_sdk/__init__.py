"""The SDK for camera pipelines in Python: one class is a pipeline.

    from dataclasses import dataclass

    from ocelli_sdk import CameraPipeline, Event, Output, export, setting


    @dataclass
    class Settings:
        below: int = setting(40, minimum=0, maximum=255, about="Grey below which it is dark")


    class Darkness(CameraPipeline):
        name = "darkness"
        version = "0.1.0"
        Settings = Settings

        def init(self, settings):
            self.below, self.dark = settings.below, False

        def process(self, frame):
            grey = frame.luma(32, 32)
            was, self.dark = self.dark, sum(grey) / len(grey) < self.below
            return Output(events=[Event("dark")] if self.dark and not was else [])


    Pipeline = export(Darkness)

`python -m ocelli_sdk.build` makes the component.
"""

from . import (
    boxes,
    budget,
    classify,
    detect,
    errors,
    families,
    frames,
    log,
    models,
    nanodet,
    settings,
    store,
    tracker,
    yolo,
    zones,
)
from .boxes import Axes, Box, Scored, suppress
from .classify import Classifier, cosine, unit
from .detect import Detector
from .errors import HostError, PipelineError, SettingsError
from .frames import (
    Channels,
    Element,
    Fit,
    Frame,
    Image,
    Layout,
    Letterbox,
    Motion,
    Placement,
    Tensor,
    TensorSpec,
    tensor_spec,
)
from .models import Model, ModelDescription
from .pipeline import (
    Attribute,
    Basis,
    CameraPipeline,
    Detection,
    Event,
    Output,
    Source,
    export,
)
from .settings import setting
from .store import Bucket
from .tracker import Track, Tracker
from .zones import Zone

__all__ = [
    "Attribute",
    "Axes",
    "Basis",
    "Box",
    "Bucket",
    "CameraPipeline",
    "Channels",
    "Classifier",
    "Detection",
    "Detector",
    "Element",
    "Event",
    "Fit",
    "Frame",
    "HostError",
    "Image",
    "Layout",
    "Letterbox",
    "Model",
    "ModelDescription",
    "Motion",
    "Output",
    "PipelineError",
    "Placement",
    "Scored",
    "SettingsError",
    "Source",
    "Tensor",
    "TensorSpec",
    "Track",
    "Tracker",
    "Zone",
    "boxes",
    "budget",
    "classify",
    "cosine",
    "detect",
    "errors",
    "export",
    "families",
    "frames",
    "log",
    "models",
    "nanodet",
    "setting",
    "settings",
    "store",
    "suppress",
    "tensor_spec",
    "tracker",
    "unit",
    "yolo",
    "zones",
]
