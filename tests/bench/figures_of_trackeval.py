#!/usr/bin/env python3
"""Makes testdata/trackeval.json: random sequences and what TrackEval says of them.

The tests of the bench hold its own metrics against this file. To make it anew:

    python3 -m venv venv && venv/bin/pip install trackeval==1.3.0
    venv/bin/python tests/bench/figures_of_trackeval.py > tests/bench/testdata/trackeval.json

Objects walk; the "results" are their boxes, shaken, some lost, some of nothing, with numbers that
are exchanged now and then. Sequences without results and without truth are among them.
"""

import json
import random
import sys

import numpy as np
from trackeval.metrics import CLEAR, HOTA, Identity

SEQUENCES = 24
QUIET = {"PRINT_CONFIG": False}


def sequence(chance):
    """The frames of a sequence: boxes of the truth and of the results, [number, x, y, w, h]."""
    number_of_frames = chance.randint(1, 30)
    objects = [
        [chance.uniform(0, 200), chance.uniform(0, 100), chance.uniform(-6, 6), chance.uniform(10, 30)]
        for _ in range(chance.randint(0, 6))
    ]
    lost, false, exchanged = chance.uniform(0, 0.5), chance.uniform(0, 0.5), chance.uniform(0, 0.3)
    numbers = list(range(1, len(objects) + 1))
    frames = []
    for _ in range(number_of_frames):
        truth, results = [], []
        if objects and chance.random() < exchanged:
            one, other = chance.randrange(len(objects)), chance.randrange(len(objects))
            numbers[one], numbers[other] = numbers[other], numbers[one]
        for index, (x, y, speed, size) in enumerate(objects):
            objects[index][0] += speed
            if chance.random() < 0.1:
                continue
            truth.append([index + 1, x, y, size, 2 * size])
            if chance.random() >= lost:
                shaken = [chance.gauss(0, size / 8) for _ in range(4)]
                sides = [max(2, size + shaken[2]), max(2, 2 * size + shaken[3])]
                results.append([numbers[index], x + shaken[0], y + shaken[1], *sides])
        if chance.random() < false:
            area = [chance.uniform(0, 200), chance.uniform(0, 100), 20, 40]
            results.append([100 + chance.randint(0, 3), *area])
        frames.append([truth, results])
    return [[[[n, *(round(v, 3) for v in box)] for n, *box in side] for side in frame] for frame in frames]


def overlaps(truth, results):
    """IoU of each box of the truth with each result."""
    table = np.zeros((len(truth), len(results)))
    for row, (_, x, y, w, h) in enumerate(truth):
        for column, (_, a, b, c, d) in enumerate(results):
            wide, high = min(x + w, a + c) - max(x, a), min(y + h, b + d) - max(y, b)
            common = max(wide, 0) * max(high, 0)
            table[row, column] = common / (w * h + c * d - common)
    return table


def numbered(boxes):
    """Their numbers counted from 0 without gaps, by frame, and how many there are."""
    place = {number: place for place, number in enumerate(sorted({box[0] for frame in boxes for box in frame}))}
    return [np.array([place[box[0]] for box in frame], dtype=int) for frame in boxes], len(place)


def figures(frames):
    """TrackEval's figures of a sequence."""
    truth, results = [frame[0] for frame in frames], [frame[1] for frame in frames]
    truth_ids, truth_count = numbered(truth)
    result_ids, result_count = numbered(results)
    data = {
        "gt_ids": truth_ids, "tracker_ids": result_ids,
        "num_gt_ids": truth_count, "num_tracker_ids": result_count,
        "num_gt_dets": sum(map(len, truth)), "num_tracker_dets": sum(map(len, results)),
        "num_timesteps": len(frames),
        "similarity_scores": [overlaps(*frame) for frame in frames],
    }
    clear = CLEAR(QUIET).eval_sequence(data)
    found = {"mota": float(clear.get("MOTA", 0)), "switches": int(clear["IDSW"])}
    # TrackEval leaves a figure out, and means 0, where truth or results have nothing.
    if data["num_gt_dets"] == 0:
        found["mota"] = float(-data["num_tracker_dets"])
    found["idf1"] = float(Identity(QUIET).eval_sequence(data).get("IDF1", 0))
    found["hota"] = float(np.mean(HOTA().eval_sequence(data)["HOTA"]))
    return found


def main():
    chance = random.Random(19)
    made = [sequence(chance) for _ in range(SEQUENCES)]
    made.append([[truth, []] for truth, _ in made[0]])
    made.append([[[], results] for _, results in made[1]])
    out = [{"frames": frames, **figures(frames)} for frames in made]
    json.dump(out, sys.stdout, separators=(",", ":"))
    print()


if __name__ == "__main__":
    main()
