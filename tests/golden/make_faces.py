#!/usr/bin/env python3
"""Compute the reference faces of pictures, independently of Ocelli's own code.

Pillow decodes, resizes and warps, Python ONNX Runtime runs the models, numpy decodes, suppresses and aligns.
README.md beside this file says which choices are part of the contract.

    make_faces.py MODELS-FOLDER OUT.json PICTURE [PICTURE ...]
"""

import json
import sys
from pathlib import Path

# Sets ORT_DISABLE_TELEMETRY before ONNX Runtime is loaded.
from make_golden import iou, letterbox, open_session, sha256

import numpy as np
import onnxruntime
import PIL
from PIL import Image

# The pipeline's defaults.
DETECTOR_SIZE = (416, 416)
SCORE = 0.5
NMS_IOU = 0.3

STRIDE = 4
FACE_SIZE = 224
# VGG-Face's channel means, BGR.
MEAN = np.array([103.939, 116.779, 123.68], np.float32)
# ArcFace's template for 112 x 112 pixels: eyes, nose, corners of the mouth.
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)


def run(session, tensor):
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: tensor})))


def detect(session, image):
    """Boxes [N, 4] as x1, y1, x2, y2, scores [N] and landmarks [N, 5, 2] in pixels of the image, best first, and
    what the network said of each: column and row of its cell, the 14 numbers beside the score."""
    canvas, (left, top, sx, sy) = letterbox(image, *DETECTOR_SIZE)
    out = run(session, np.ascontiguousarray(canvas.astype(np.float32).transpose(2, 0, 1)[None]))
    heatmap = out["heatmap"][0, 0]
    rows, columns = np.nonzero(heatmap >= SCORE)
    scores = heatmap[rows, columns]
    height, width = (np.exp(out["scale"][0, n, rows, columns].astype(np.float64)) * STRIDE for n in (0, 1))
    down, across = (out["offset"][0, n, rows, columns].astype(np.float64) for n in (0, 1))
    x1 = (columns + across + 0.5) * STRIDE - width / 2
    y1 = (rows + down + 0.5) * STRIDE - height / 2
    boxes = np.stack([x1, y1, x1 + width, y1 + height], axis=1)
    shares = out["landmarks"][0][:, rows, columns].T.reshape(-1, 5, 2).astype(np.float64)
    points = np.stack([x1[:, None] + shares[..., 1] * width[:, None], y1[:, None] + shares[..., 0] * height[:, None]], -1)
    kept, order = [], np.argsort(-scores, kind="stable")
    while order.size:
        best, order = order[0], order[1:]
        kept.append(best)
        order = order[iou(boxes[best], boxes[order]) <= NMS_IOU]
    boxes = (boxes[kept] - [left, top, left, top]) / [sx, sy, sx, sy]
    points = (points[kept] - [left, top]) / [sx, sy]
    planes = np.concatenate([out[name][0][:, rows, columns] for name in ("scale", "offset", "landmarks")])
    cells = [(int(columns[k]), int(rows[k]), planes[:, k]) for k in kept]
    return np.clip(boxes, 0, [*image.size, *image.size]), scores[kept], points, cells


def similarity(source, target):
    """The 2 x 3 matrix of shift, turn and one scale that takes source [N, 2] to target in least squares, by
    Umeyama's singular value decomposition."""
    source_middle, target_middle = source.mean(0), target.mean(0)
    s, t = source - source_middle, target - target_middle
    u, d, vt = np.linalg.svd(t.T @ s / len(source))
    signs = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = u @ np.diag(signs) @ vt
    scale = (d * signs).sum() / s.var(0).sum()
    return np.hstack([scale * rotation, (target_middle - scale * rotation @ source_middle)[:, None]])


def from_face(landmarks):
    """The 2 x 3 matrix from the aligned face's pixels to the image's."""
    to_face = np.vstack([similarity(landmarks, TEMPLATE * FACE_SIZE / 112), [0, 0, 1]])
    return np.linalg.inv(to_face)[:2]


def align(image, to_image):
    """The face as the template has it, FACE_SIZE x FACE_SIZE, sampled bilinearly; beyond the image, the mean."""
    mean = tuple(round(float(n)) for n in MEAN[::-1])
    size, numbers = (FACE_SIZE, FACE_SIZE), tuple(to_image.ravel())
    return image.transform(size, Image.Transform.AFFINE, numbers, Image.Resampling.BILINEAR, fillcolor=mean)


def read(session, face):
    """The embedding at length 1, the probability of "male", and the mean age."""
    bgr = np.asarray(face)[..., ::-1].astype(np.float32) - MEAN
    out = run(session, np.ascontiguousarray(bgr.transpose(2, 0, 1)[None]))
    embedding = out["embedding"][0].astype(np.float64)
    ages = out["age"][0].astype(np.float64)
    return embedding / np.linalg.norm(embedding), float(out["gender"][0, 0]), float(ages @ np.arange(1, 101) / ages.sum())


def faces(detector, embedder, image):
    found = []
    for box, score, landmarks, (column, row, numbers) in zip(*detect(detector, image)):
        to_image = from_face(landmarks)
        embedding, male, age = read(embedder, align(image, to_image))
        found.append(
            {
                "score": round(float(score), 4),
                "box": [round(float(n), 2) for n in (*box[:2], *(box[2:] - box[:2]))],
                "landmarks": [[round(float(n), 2) for n in point] for point in landmarks],
                "cell": [column, row],
                "network": [round(float(n), 6) for n in numbers],
                "to_image": [round(float(n), 5) for n in to_image.ravel()],
                "gender": "male" if male > 0.5 else "female",
                "age": round(age, 1),
                "embedding": [round(float(n), 4) for n in embedding],
            }
        )
    return found


def main(arguments):
    if len(arguments) < 3:
        sys.exit(__doc__)
    models, out, *pictures = arguments
    paths = {name: Path(models) / name / "model.onnx" for name in ("centerface", "faceres-224")}
    detector, embedder = (open_session(path) for path in paths.values())
    reference = {
        "models": {name: sha256(path) for name, path in paths.items()},
        "versions": {
            "python": sys.version.split()[0],
            "onnxruntime": onnxruntime.__version__,
            "pillow": PIL.__version__,
            "numpy": np.__version__,
        },
        "detector_size": DETECTOR_SIZE,
        "score": SCORE,
        "iou": NMS_IOU,
        "pictures": [],
    }
    for picture in pictures:
        image = Image.open(picture).convert("RGB")
        entry = {"file": Path(picture).name, "sha256": sha256(picture), "width": image.width, "height": image.height}
        reference["pictures"].append({**entry, "faces": faces(detector, embedder, image)})
        print(f"{picture}: {len(reference['pictures'][-1]['faces'])} faces")
    head = {key: value for key, value in reference.items() if key != "pictures"}
    lines = (json.dumps(entry, separators=(",", ":")) for entry in reference["pictures"])
    text = json.dumps(head, separators=(",", ":"))[:-1] + ',"pictures":[\n' + ",\n".join(lines) + "\n]}\n"
    Path(out).write_text(text)


if __name__ == "__main__":
    main(sys.argv[1:])
