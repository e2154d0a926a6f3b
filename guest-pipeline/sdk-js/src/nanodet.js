/**
 * NanoDet, the detector that comes with the host: boxes of the 80 COCO classes. `Detector` runs it,
 * too, by the host's description; this one needs none.
 */

import { suppress } from './boxes.js';
import { FAMILIES } from './families.js';
import { tensorSpec } from './frames.js';
import { Model } from './models.js';

const STRIDES = [8, 16, 32];

const FORM = {
  scores: STRIDES.map((stride) => `cls_s${stride}`),
  sides: STRIDES.map((stride) => `reg_s${stride}`),
  classes: 80,
  strides: STRIDES,
  bins: 11,
  point: 0.5,
};

/** A NanoDet by its name. `size` is the side of its input. */
export class NanoDet {
  #model;
  #spec;

  constructor(name = 'nanodet-g-320-int8', size = 320) {
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
    const search = { size: [this.size, this.size], score, classes };
    const found = [];
    for (const one of FAMILIES.nanodet(this.#model.run({ input: tensor }), FORM, search)) {
      const box = letterbox.inFrame(one.box);
      if (box.proper) found.push({ box, score: one.score, class: one.class });
    }
    return found.length > 0 ? suppress(found, iou) : [];
  }
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
