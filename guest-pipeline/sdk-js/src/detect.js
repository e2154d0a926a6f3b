/** Any detector that the host can describe: by the family of its outputs, these become boxes. */

import { suppress } from './boxes.js';
import { PipelineError, SettingsError } from './errors.js';
import { FAMILIES } from './families.js';
import { Tensor } from './frames.js';
import { Model, describeModel } from './models.js';

/** A model of the host's catalogue that finds boxes, by its name. Load it in `init`. */
export class Detector {
  #form;
  #model;

  constructor(name) {
    const { family, decoder, picture, labels } = describeModel(name);
    const lacks = (what) => {
      throw new PipelineError(`model ${name}: ${what}; a pipeline of its own can run it`);
    };
    if (family === undefined) {
      lacks('its model.toml has no [decoder], so its outputs mean nothing');
    }
    if (family === 'classifier') {
      throw new PipelineError(`model ${name}: it is a classifier, which finds no boxes`);
    }
    if (!Object.hasOwn(FAMILIES, family)) {
      const known = Object.keys(FAMILIES).join(', ');
      const words = `its decoder is of the family ${JSON.stringify(family)}`;
      throw new PipelineError(`model ${name}: ${words}; this SDK knows ${known}`);
    }
    if (picture === undefined) {
      lacks('its model.toml has no [preprocessing] for an input of one size');
    }
    Object.assign(this, { name, family, labels, input: picture.name, spec: picture.spec });
    this.#form = decoder;
    this.#model = new Model(name);
  }

  /** What is in the frame, or in a region of it; best first, boxes in frame pixels. */
  detect(frame, { score = 0.4, iou = 0.5, classes, region } = {}) {
    const [tensor, letterbox] = frame.tensor(this.spec, region);
    const inputs = { [this.input]: tensor };
    const size = [this.spec.width, this.spec.height];
    if (this.#form.sizes !== undefined) inputs[this.#form.sizes] = Tensor.ofIntegers([1, 2], size);
    const outputs = this.#model.run(inputs);
    const found = [];
    for (const one of this.#decoded(outputs, { size, score, classes })) {
      // What lies outside of the frame altogether, in a letterbox's bars, is left out.
      const box = letterbox.inFrame(one.box);
      if (box.proper) found.push({ box, score: one.score, class: one.class });
    }
    return found.length > 0 ? suppress(found, iou) : [];
  }

  #decoded(outputs, search) {
    try {
      return FAMILIES[this.family](outputs, this.#form, search);
    } catch (error) {
      if (!(error instanceof PipelineError)) throw error;
      throw new PipelineError(`model ${this.name}: ${error.message}`);
    }
  }

  /** The name of a class: "class 3" where the model has none for it. */
  label(number) {
    return this.labels[number] ?? `class ${number}`;
  }

  /** The classes of these names; undefined, which is all, without one. */
  classes(labels, at = 'settings.labels') {
    labels.forEach((label, place) => {
      if (this.labels.includes(label)) return;
      const known = this.labels.join(', ') || 'none';
      const words = `no label ${JSON.stringify(label)}; there are ${known}`;
      throw new SettingsError(`${at}[${place}]: ${words}`);
    });
    return labels.length > 0 ? labels.map((label) => this.labels.indexOf(label)) : undefined;
  }
}
