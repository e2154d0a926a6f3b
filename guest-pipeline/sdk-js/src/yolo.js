/**
 * YOLO detectors whose form is said here. `Detector` takes it from the host's description of the
 * model, and knows more families.
 */

import { suppress } from './boxes.js';
import { FAMILIES } from './families.js';
import { tensorSpec } from './frames.js';
import { Model } from './models.js';

const FORMS = ['yolov8', 'yolov5', 'yolov10'];

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
    if (!FORMS.includes(form)) {
      throw new RangeError(`form ${form} is none of ${FORMS.join(', ')}`);
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
    const outputs = this.#model.run({ [this.input]: tensor });
    const search = { size: [this.#spec.width, this.#spec.height], score, classes };
    const found = FAMILIES[this.form](outputs, this, search)
      .map((one) => ({ ...one, box: letterbox.inFrame(one.box) }))
      .filter((one) => one.box.proper);
    return this.form === 'yolov10' || found.length === 0 ? found : suppress(found, iou);
  }
}
