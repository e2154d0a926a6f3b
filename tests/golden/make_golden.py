#!/usr/bin/env python3
"""Compute the reference detections of a clip, independently of Ocelli's own code.

PyAV decodes, numpy converts to RGB, Pillow resizes, Python ONNX Runtime runs the model and numpy decodes
the boxes. README.md beside this file says which choices are part of the contract.

    make_golden.py MODEL.onnx CLIP OUT.json [CLIP OUT.json ...]
"""

import hashlib
import json
import os
import sys
from pathlib import Path

# ONNX Runtime reads this when it is loaded, so it is set before the import.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import av
import numpy as np
import onnxruntime
import PIL
from PIL import Image

COCO_LABELS = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,"
    "parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,"
    "tie,suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,"
    "tennis racket,bottle,wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,"
    "hot dog,pizza,donut,cake,chair,couch,potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,"
    "keyboard,cell phone,microwave,oven,toaster,sink,refrigerator,book,clock,vase,scissors,teddy bear,"
    "hair drier,toothbrush"
).split(",")

# The pipeline's threshold, and the lower one down to which this file records, so that a comparer can tell a
# detection that fell just under the threshold from one that was never there.
PIPELINE_SCORE = 0.40
RECORDED_SCORE = 0.30
NMS_IOU = 0.50

# nanodet-g: BGR mean and standard deviation over 0..255, three strides, 11 bins per side of a box.
MEAN = np.array([103.53, 116.28, 123.675], np.float32)
STD = np.array([57.375, 57.12, 58.395], np.float32)
STRIDES = (8, 16, 32)
BINS = 11

# Values of AVColorSpace and AVColorRange (FFmpeg, libavutil/pixfmt.h), which are those of ITU-T H.273.
BT709, UNSPECIFIED, BT470BG, SMPTE170M = 1, 2, 5, 6
FULL_RANGE = 2
# Below this height an untagged picture is taken as standard definition, which is BT.601.
HD_HEIGHT = 720


def matrix_of(frame):
    """The luma coefficients (Kr, Kb) of a frame and their name: as tagged, else by height."""
    tag = int(frame.colorspace)
    if tag == UNSPECIFIED:
        tag = BT709 if frame.height >= HD_HEIGHT else SMPTE170M
    if tag == BT709:
        return 0.2126, 0.0722, "bt709"
    if tag in (BT470BG, SMPTE170M):
        return 0.299, 0.114, "bt601"
    raise ValueError(f"colour matrix {tag} is not handled")


def is_full_range(frame):
    """Whether samples span 0..255; an untagged frame does not, save in the yuvj formats of JPEG."""
    return int(frame.color_range) == FULL_RANGE or frame.format.name.startswith("yuvj")


def plane(frame, index):
    """One plane of a frame as float32, without the padding at the end of its rows."""
    p = frame.planes[index]
    return np.frombuffer(p, np.uint8).reshape(p.height, p.line_size)[:, : p.width].astype(np.float32)


def between(a, axis, weights, centred):
    """Double one axis by linear interpolation. Centred siting puts the two new samples a quarter of a chroma
    sample either side of the old one; cosited siting puts the first on it and the second half-way."""
    before = np.concatenate([np.take(a, [0], axis), np.delete(a, -1, axis)], axis)
    after = np.concatenate([np.delete(a, 0, axis), np.take(a, [-1], axis)], axis)
    near, far = weights
    first = near * a + far * before if centred else a
    second = near * a + far * after
    out = np.stack([first, second], axis + 1)
    shape = list(a.shape)
    shape[axis] *= 2
    return out.reshape(shape)


def upsample_chroma(chroma, width, height, jpeg_siting):
    """Chroma of a 4:2:0 picture at luma resolution. Rows lie centred between two luma rows; columns lie on
    the left luma column in H.264 and H.265 (chroma sample location type 0) and centred in JPEG."""
    centred, half = (0.75, 0.25), (0.5, 0.5)
    tall = between(chroma, 0, centred, True)
    full = between(tall, 1, centred, True) if jpeg_siting else between(tall, 1, half, False)
    return full[:height, :width]


def to_rgb(frame):
    """A decoded 4:2:0 frame as a Pillow RGB image, by the formulas of ITU-R BT.601 and BT.709."""
    if frame.format.name not in ("yuv420p", "yuvj420p"):
        raise ValueError(f"pixel format {frame.format.name} is not handled")
    jpeg = frame.format.name == "yuvj420p"
    kr, kb, _ = matrix_of(frame)
    y = plane(frame, 0)
    u, v = (upsample_chroma(plane(frame, i), frame.width, frame.height, jpeg) - 128.0 for i in (1, 2))
    if not is_full_range(frame):
        y = (y - 16.0) * (255.0 / 219.0)
        u, v = u * (255.0 / 224.0), v * (255.0 / 224.0)
    red = y + 2.0 * (1.0 - kr) * v
    blue = y + 2.0 * (1.0 - kb) * u
    green = (y - kr * red - kb * blue) / (1.0 - kr - kb)
    rgb = np.stack([red, green, blue], axis=-1)
    return Image.fromarray(np.clip(np.rint(rgb), 0, 255).astype(np.uint8), "RGB")


def letterbox(image, width, height):
    """The image scaled to fit and centred on black: an array [height, width, 3] of RGB bytes, and the placement
    (left, top, x scale, y scale) where network pixel = frame pixel * scale + offset."""
    scale = min(width / image.width, height / image.height)
    w, h = round(image.width * scale), round(image.height * scale)
    left, top = (width - w) // 2, (height - h) // 2
    canvas = np.zeros((height, width, 3), np.uint8)
    canvas[top : top + h, left : left + w] = np.asarray(image.resize((w, h), Image.Resampling.BILINEAR))
    return canvas, (left, top, w / image.width, h / image.height)


def to_tensor(rgb):
    """RGB bytes [H, W, 3] as the normalised BGR tensor [1, 3, H, W]."""
    bgr = (rgb[..., ::-1].astype(np.float32) - MEAN) / STD
    return np.ascontiguousarray(bgr.transpose(2, 0, 1)[None])


def decode_boxes(outputs, width, height):
    """Candidates of one run: boxes [N, 4] as x1, y1, x2, y2 in network pixels, scores [N], classes [N].
    Each cell offers its best class alone."""
    boxes, scores, classes = [], [], []
    for stride in STRIDES:
        cls, reg = outputs[f"cls_s{stride}"][0], outputs[f"reg_s{stride}"][0]
        columns, rows = width // stride, height // stride
        assert cls.shape == (columns * rows, len(COCO_LABELS)) and reg.shape == (columns * rows, 4 * BINS)
        cells = np.flatnonzero(cls.max(axis=1) >= RECORDED_SCORE)
        logits = reg[cells].reshape(-1, 4, BINS).astype(np.float64)
        bins = np.exp(logits - logits.max(axis=-1, keepdims=True))
        sides = (bins / bins.sum(axis=-1, keepdims=True)) @ np.arange(BINS) * stride
        x, y = (cells % columns + 0.5) * stride, (cells // columns + 0.5) * stride
        boxes.append(np.stack([x - sides[:, 0], y - sides[:, 1], x + sides[:, 2], y + sides[:, 3]], axis=1))
        scores.append(cls[cells].max(axis=1))
        classes.append(cls[cells].argmax(axis=1))
    return np.concatenate(boxes), np.concatenate(scores), np.concatenate(classes)


def to_frame(boxes, placement, width, height):
    """Boxes in network pixels as boxes in frame pixels, clipped to the frame."""
    left, top, sx, sy = placement
    out = (boxes - [left, top, left, top]) / [sx, sy, sx, sy]
    return np.clip(out, 0, [width, height, width, height])


def iou(box, others):
    """Intersection over union of one box [4] with others [N, 4]."""
    overlap = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    intersection = np.clip(overlap, 0, None).prod(axis=1)
    area = (box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(axis=1)
    return intersection / np.maximum(area - intersection, 1e-9)


def nms(boxes, scores, classes):
    """Indices that greedy non-maximum suppression within each class keeps, best score first. Of two equal
    scores the earlier cell (finer stride first, then row by row) wins."""
    kept = []
    left = np.argsort(-scores, kind="stable")
    while left.size:
        best, left = left[0], left[1:]
        kept.append(best)
        left = left[(classes[left] != classes[best]) | (iou(boxes[best], boxes[left]) <= NMS_IOU)]
    return kept


def detect(session, frame):
    """Detections of one frame, best score first, boxes as x, y, width, height in frame pixels."""
    _, _, height, width = session.get_inputs()[0].shape
    canvas, placement = letterbox(to_rgb(frame), width, height)
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, session.run(names, {session.get_inputs()[0].name: to_tensor(canvas)})))
    boxes, scores, classes = decode_boxes(outputs, width, height)
    boxes = to_frame(boxes, placement, frame.width, frame.height)
    return [
        {
            "label": COCO_LABELS[classes[i]],
            "score": round(float(scores[i]), 4),
            "box": [round(float(n), 2) for n in (*boxes[i, :2], *(boxes[i, 2:] - boxes[i, :2]))],
        }
        for i in nms(boxes, scores, classes)
    ]


def sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def open_session(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def golden(session, model, clip):
    """The reference of a whole clip: every frame, numbered from 0 in presentation order."""
    frames = []
    with av.open(str(clip)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if not frames:
                picture = {
                    "width": frame.width,
                    "height": frame.height,
                    "matrix": matrix_of(frame)[2],
                    "range": "full" if is_full_range(frame) else "limited",
                }
            frames.append({"frame": number, "detections": detect(session, frame)})
    return {
        "clip": Path(clip).name,
        "clip_sha256": sha256(clip),
        "model": Path(model).parent.name,
        "model_sha256": sha256(model),
        "versions": {
            "python": sys.version.split()[0],
            "onnxruntime": onnxruntime.__version__,
            "av": av.__version__,
            "libavcodec": ".".join(map(str, av.library_versions["libavcodec"])),
            "pillow": PIL.__version__,
            "numpy": np.__version__,
        },
        "pipeline_score": PIPELINE_SCORE,
        "recorded_score": RECORDED_SCORE,
        "nms_iou": NMS_IOU,
        **picture,
        "frames": frames,
    }


def write(path, reference):
    """Compact JSON with a line for each frame, so that a change shows as the frames it touches."""
    head = {key: value for key, value in reference.items() if key != "frames"}
    lines = (json.dumps(frame, separators=(",", ":")) for frame in reference["frames"])
    text = json.dumps(head, separators=(",", ":"))[:-1] + ',"frames":[\n' + ",\n".join(lines) + "\n]}\n"
    Path(path).write_text(text)


def main(arguments):
    if len(arguments) < 3 or len(arguments) % 2 == 0:
        sys.exit(__doc__)
    model, pairs = arguments[0], arguments[1:]
    session = open_session(model)
    for clip, out in zip(pairs[::2], pairs[1::2]):
        reference = golden(session, model, clip)
        write(out, reference)
        count = sum(len(frame["detections"]) for frame in reference["frames"])
        print(f"{out}: {len(reference['frames'])} frames, {count} detections of {RECORDED_SCORE} and more")


if __name__ == "__main__":
    main(sys.argv[1:])
