/** YOLO detectors by the form of their output: the host searches it, the hits alone are read. */

import { Box, suppress } from './boxes.js';
import { tensorSpec } from './frames.js';
import { Model } from './models.js';

/** Rows that are decoded, the best first: before suppression an object has some tens of them. */
const LIMIT = { limit: 1000 };

/** Reads candidates, boxes in tensor pixels, of each form. */
const FORMS = {
  yolov8(output, classes, least) {
    const options = { ...LIMIT, axes: 'columns-rows', classes: [4, classes] };
    const hits = output.best(least, options);
    const rows = output.rows(
      hits.map((hit) => hit.row),
      options,
    );
    return hits.map(({ score, class: kind }, i) => {
      const [x, y, width, height] = rows[i];
      return { box: Box.about(x, y, width, height), score, class: kind };
    });
  },
  yolov5(output, classes, least) {
    // The score is the objectness times a class's, which is at most 1: the objectness bounds it.
    const hits = output.best(least, { ...LIMIT, classes: [4, 1] });
    const found = output.rows(hits.map((hit) => hit.row)).map((row) => {
      const [x, y, width, height, objectness] = row;
      const scores = row.slice(5, 5 + classes);
      const best = Math.max(...scores);
      const box = Box.about(x, y, width, height);
      return { box, score: best * objectness, class: scores.indexOf(best) };
    });
    return found.filter(({ score }) => score >= least);
  },
  yolov10(output, _, least) {
    const hits = output.best(least, { ...LIMIT, classes: [4, 1] });
    const found = output.rows(hits.map((hit) => hit.row)).map((row) => {
      const [left, top, right, bottom, score, kind] = row;
      return { box: new Box(left, top, right, bottom), score, class: kind };
    });
    // Rows without a detection are filled with zeros, or with a class of -1.
    return found.filter((one) => one.class >= 0);
  },
};

/** A YOLO of the host's catalogue; `form` is that of its output. */
export class Yolo {
  #model;
  #spec;

  constructor(
    name,
    {
      size = 640,
      form = 'yolov8',
      classes = 80,
      input = 'images',
      output = 'output0',
      spec = {},
    } = {},
  ) {
    if (!Object.hasOwn(FORMS, form)) {
      throw new RangeError(`form ${form} is none of ${Object.keys(FORMS).join(', ')}`);
    }
    Object.assign(this, { form, classes, input, output });
    const [width, height] = typeof size === 'number' ? [size, size] : size;
    const plain = { fill: [114, 114, 114], std: [255, 255, 255] };
    this.#spec = tensorSpec(width, height, { ...plain, ...spec });
    this.#model = new Model(name);
  }

  /** What is in the frame, or in a region of it; best first, boxes in frame pixels. */
  detect(frame, { score = 0.4, iou = 0.5, classes, region } = {}) {
    const [tensor, letterbox] = frame.tensor(this.#spec, region);
    const output = this.#model.run({ [this.input]: tensor })[this.output];
    const found = FORMS[this.form](output, this.classes, score)
      .filter((one) => classes === undefined || classes.includes(one.class))
      .map((one) => ({ ...one, box: letterbox.inFrame(one.box) }))
      .filter((one) => one.box.proper);
    return this.form === 'yolov10' || found.length === 0 ? found : suppress(found, iou);
  }
}
