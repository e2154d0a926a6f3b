/** NanoDet, the detector that comes with the host: boxes of the 80 COCO classes. */

import { Box, suppress } from './boxes.js';
import { tensorSpec } from './frames.js';
import { Model } from './models.js';

/** Bins of a side: distances of 0 to 10 strides. */
const BINS = 11;

/** Strides of the three output levels in input pixels. */
const STRIDES = [8, 16, 32];

/** Cells of one level that are decoded, the best first: a crowd has a few per person. */
const CELLS_READ = 300;

/** A NanoDet by its name. `size` is the side of its input. */
export class NanoDet {
  #model;
  #spec;

  constructor(name = 'nanodet-g-416', size = 416) {
    this.size = size;
    this.#model = new Model(name);
    // ImageNet's means and deviations in BGR, as NanoDet was trained with.
    this.#spec = tensorSpec(size, size, {
      channels: 'bgr',
      mean: [103.53, 116.28, 123.675],
      std: [57.375, 57.12, 58.395],
    });
  }

  /** What is in the frame, best first, boxes in frame pixels. */
  detect(frame, { score = 0.4, iou = 0.5, classes } = {}) {
    const [tensor, letterbox] = frame.tensor(this.#spec);
    const outputs = this.#model.run({ input: tensor });
    const found = [];
    for (const stride of STRIDES) {
      let hits = outputs[`cls_s${stride}`].best(score, { limit: CELLS_READ });
      if (classes !== undefined) hits = hits.filter((hit) => classes.includes(hit.class));
      const rows = outputs[`reg_s${stride}`].rows(hits.map((hit) => hit.row));
      hits.forEach((hit, i) => {
        const box = letterbox.inFrame(cellBox(rows[i], hit.row, this.size / stride, stride));
        if (box.proper) found.push({ box, score: hit.score, class: hit.class });
      });
    }
    return found.length > 0 ? suppress(found, iou) : [];
  }
}

/** A cell's box: distances from its centre to the sides, in strides, are expected bins. */
function cellBox(row, cell, columns, stride) {
  const [left, top, right, bottom] = [0, 1, 2, 3].map(
    (side) => expected(row, side * BINS) * stride,
  );
  const x = ((cell % columns) + 0.5) * stride;
  const y = (Math.floor(cell / columns) + 0.5) * stride;
  return new Box(x - left, y - top, x + right, y + bottom);
}

/** The mean of 0 to 10 under the softmax of the logits from `first` on. */
function expected(row, first) {
  let largest = -Infinity;
  for (let bin = 0; bin < BINS; bin++) largest = Math.max(largest, row[first + bin]);
  let [sum, weighted] = [0, 0];
  for (let bin = 0; bin < BINS; bin++) {
    const weight = Math.exp(row[first + bin] - largest);
    sum += weight;
    weighted += weight * bin;
  }
  return weighted / sum;
}

/** The label of each class. */
export const COCO_LABELS = (
  'person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,' +
  'stop sign,parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,' +
  'backpack,umbrella,handbag,tie,suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,' +
  'baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,cup,fork,knife,spoon,' +
  'bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,' +
  'potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,' +
  'oven,toaster,sink,refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush'
).split(',');
