/** Classifiers that the host can describe, and vectors that say how alike two things are. */

import { PipelineError } from './errors.js';
import { Model, describeModel } from './models.js';

/** A classifier of the host's catalogue, by its name. Load it in `init`. */
export class Classifier {
  #decoder;
  #model;

  constructor(name) {
    const { family, decoder, picture, labels } = describeModel(name);
    if (family !== 'classifier') {
      throw new PipelineError(`model ${name}: its [decoder] is no classifier's`);
    }
    if (picture === undefined) {
      const lacks = 'its model.toml has no [preprocessing] for an input of one size';
      throw new PipelineError(`model ${name}: ${lacks}`);
    }
    Object.assign(this, { name, labels, input: picture.name, spec: picture.spec });
    this.#decoder = decoder;
    this.#model = new Model(name);
  }

  /** The best `count` classes of the frame, or of a region of it, with their scores. */
  classify(frame, { region, count = 1 } = {}) {
    const [tensor] = frame.tensor(this.spec, region);
    const numbers = this.#model.run({ [this.input]: tensor })[this.#decoder.output].floats();
    const best = classes(numbers, this.#decoder.activation).slice(0, count);
    return best.map(([number, score]) => ({ label: this.label(number), score }));
  }

  /** The name of a class: "class 3" where the model has none for it. */
  label(number) {
    return this.labels[number] ?? `class ${number}`;
  }
}

/** The classes of a classifier's output and their scores, best first, of equals the first. */
export function classes(numbers, activation = 'softmax') {
  if (!numbers.every(Number.isFinite)) {
    throw new PipelineError("the classifier's output is not finite");
  }
  let scores = Array.from(numbers);
  if (activation === 'softmax') {
    const largest = scores.reduce((a, b) => Math.max(a, b), -Infinity);
    const weights = scores.map((number) => Math.exp(number - largest));
    const total = weights.reduce((a, b) => a + b, 0);
    scores = weights.map((weight) => weight / total);
  } else if (activation === 'sigmoid') {
    scores = scores.map((number) => 1 / (1 + Math.exp(-number)));
  }
  return [...scores.entries()].sort((a, b) => b[1] - a[1]);
}

/** The vector at length 1. One without a direction is an error: it resembles nothing. */
export function unit(vector) {
  const length = Math.sqrt(Array.from(vector).reduce((sum, number) => sum + number * number, 0));
  if (!(length > 0 && Number.isFinite(length))) {
    throw new PipelineError(`an embedding of ${vector.length} numbers is zero or not finite`);
  }
  return Float32Array.from(vector, (number) => number / length);
}

/** How alike two vectors are: the cosine of the angle between them, -1 to 1. */
export function cosine(one, other) {
  if (one.length !== other.length) {
    throw new PipelineError(`embeddings of ${one.length} and ${other.length} numbers`);
  }
  const [a, b] = [unit(one), unit(other)];
  return Math.min(Math.max(a.reduce((sum, number, i) => sum + number * b[i], 0), -1), 1);
}
