/** Tests without a host: a pipeline, scripted frames and scripted models. */

import { host } from '#host';
import { Box } from './boxes.js';
import { dispose } from './errors.js';
import { exportPipeline } from './pipeline.js';

let open = 0;

/** Something that is to be given back. */
class FakeHandle {
  #closed = false;

  constructor() {
    open += 1;
  }

  [dispose]() {
    if (this.#closed) throw new Error('a handle was given back twice');
    this.#closed = true;
    open -= 1;
  }
}

class FakeImage extends FakeHandle {
  size() {
    return 1000n;
  }
}

const ELEMENTS = { FP32: Float32Array, I64: BigInt64Array, I32: Int32Array, U8: Uint8Array };

class FakeTensor extends FakeHandle {
  constructor(shape, values, type = 'FP32') {
    super();
    this.shape = Array.from(shape);
    this.type = type;
    this.values = ELEMENTS[type].from(values, type === 'I64' ? BigInt : Number);
  }

  dimensions() {
    return Uint32Array.from(this.shape);
  }

  ty() {
    return this.type;
  }

  data() {
    return new Uint8Array(this.values.buffer.slice(0));
  }

  /** Its rows. */
  table(axes) {
    const [height, width] = this.shape.slice(-2);
    const at = (row, column) => this.values[row * width + column];
    const [rows, columns] = axes === 'rows-columns' ? [height, width] : [width, height];
    const value = axes === 'rows-columns' ? at : (row, column) => at(column, row);
    return Array.from({ length: rows }, (_, row) =>
      Array.from({ length: columns }, (_, column) => value(row, column)),
    );
  }
}

/** A tensor that the pipeline makes. */
class MadeTensor extends FakeTensor {
  constructor(shape, type, data) {
    super(shape, new ELEMENTS[type](Uint8Array.from(data).buffer), type);
  }
}

/**
 * A frame of a script, at 10 a second. `luma` is a grey picture, or a function that gives one;
 * `moving` are the boxes in which something changes, or null where the whole picture does; `flow`
 * says where a point of the frame before is, or nothing where it is lost.
 */
export class FakeFrame {
  #script;

  constructor({ index = 0, width = 640, height = 360, luma, seconds, skipped = 0, ...other } = {}) {
    const script = { index, width, height, luma, seconds: seconds ?? index / 10, skipped };
    this.#script = { moving: [], flow: (x, y) => [x, y], ...script, ...other };
  }

  index() {
    return BigInt(this.#script.index);
  }

  captureTime() {
    return BigInt(Math.round(this.#script.seconds * 1e9));
  }

  presentationTime() {
    return this.captureTime();
  }

  width() {
    return this.#script.width;
  }

  height() {
    return this.#script.height;
  }

  skipped() {
    return BigInt(this.#script.skipped);
  }

  luma(width, height) {
    const { luma } = this.#script;
    const picture = typeof luma === 'function' ? luma(width, height) : luma;
    if (picture?.length !== width * height) {
      throw new Error(`the script has ${picture?.length} pixels for ${width} x ${height}`);
    }
    return Uint8Array.from(picture);
  }

  motion() {
    const { moving, width, height } = this.#script;
    if (!moving) return { regions: [], share: 1, calibrating: true };
    const boxes = moving.toSorted((one, other) => other.area - one.area);
    const area = boxes.reduce((sum, box) => sum + box.area, 0);
    const regions = boxes.slice(0, 32).map((box) => box.rect());
    return { regions, share: Math.min(1, area / (width * height)), calibrating: false };
  }

  flow(points) {
    const found = points.map(({ x, y }) => this.#script.flow(x, y));
    return found.map((point) => point && { x: point[0], y: point[1] });
  }

  tensor(region, spec) {
    const { x, y, width, height } = region ?? { x: 0, y: 0, ...this.#script };
    const scale = Math.min(spec.width / width, spec.height / height);
    const size = (length, limit) =>
      spec.fit === 'stretch' ? limit : Math.max(1, Math.round(length * scale));
    const [w, h] = [size(width, spec.width), size(height, spec.height)];
    const [scaleX, scaleY] = [w / width, h / height];
    const offsetX = Math.floor((spec.width - w) / 2) - x * scaleX;
    const offsetY = Math.floor((spec.height - h) / 2) - y * scaleY;
    const shape = [1, 3, spec.height, spec.width];
    const values = new Float32Array(3 * spec.height * spec.width);
    return [new FakeTensor(shape, values), { scaleX, scaleY, offsetX, offsetY }];
  }

  image() {
    return new FakeImage();
  }

  imageWithin(_, longest, quality) {
    if (!Number.isInteger(longest) || !(quality >= 1 && quality <= 100)) {
      throw new TypeError(`a picture of at most ${longest} pixels, of quality ${quality}`);
    }
    return new FakeImage();
  }
}

const best = (table, axes, columns, threshold, limit) => {
  const { first = 0, count = Infinity } = columns ?? {};
  const found = table.table(axes).map((row, place) => {
    const looked = row.slice(first, first + count);
    const score = Math.max(...looked);
    return { row: place, class: looked.indexOf(score), score };
  });
  const right = found.filter((hit) => hit.score >= threshold);
  return right.sort((a, b) => b.score - a.score).slice(0, limit);
};

const rows = (table, axes, wanted) => {
  const all = table.table(axes);
  return Float32Array.from(Array.from(wanted).flatMap((row) => all[row]));
};

const suppress = (scored, iou) => {
  const box = (place) => {
    const { x, y, width, height } = scored[place].box;
    return Box.of(x, y, width, height);
  };
  const stand = [];
  const order = scored.map((_, place) => place).sort((a, b) => scored[b].score - scored[a].score);
  for (const place of order) {
    const rivals = stand.filter((other) => scored[other].class === scored[place].class);
    if (rivals.every((other) => box(place).iou(box(other)) <= iou)) stand.push(place);
  }
  return Uint32Array.from(stand);
};

class FakeGraph {
  constructor(script) {
    this.script = script;
  }

  initExecutionContext() {
    return this;
  }

  compute(inputs) {
    const outputs = this.script(Object.fromEntries(inputs));
    for (const [, tensor] of inputs) tensor[dispose]();
    return Object.entries(outputs).map(([name, output]) => [name, new FakeTensor(...output)]);
  }
}

/**
 * What the host says of a model: `decoder` is the table `[decoder]` of its `model.toml`, `spec` is
 * what its `input` takes, by `tensorSpec`.
 */
export function described({ decoder, spec, labels = [], input = 'input' } = {}) {
  return {
    inputs: [],
    outputs: [],
    picture: spec && { name: input, spec },
    decoder: decoder && { family: decoder.family, parameters: JSON.stringify(decoder) },
    labels,
  };
}

/**
 * Stands in for the host while `work` runs. `models` maps names to functions of the named inputs,
 * which give each output's shape and numbers, and its type where that is not `FP32`;
 * `descriptions` has what the host knows of them, by `described`. `budget` are the next answers to
 * `budget.ask`; after the last one it is yes, as with a file. What was asked with is added to
 * `wants`. At the end no handle may be open.
 */
export async function withHost(
  { models = {}, descriptions = {}, lines = [], budget = [], wants = [] },
  work,
) {
  const before = { ...host };
  const buckets = new Map();
  const answers = [...budget];
  open = 0;
  Object.assign(host, {
    store: {
      open(name) {
        if (!buckets.has(name)) buckets.set(name, new Map());
        return buckets.get(name);
      },
    },
    atomics: { increment },
    boxes: { best, rows, suppress },
    budget: {
      ask(want) {
        wants.push(want);
        return answers.shift() ?? true;
      },
    },
    graph: {
      loadByName(name) {
        if (Object.hasOwn(models, name)) return new FakeGraph(models[name]);
        throw Object.assign(new Error(), { payload: `not-found: no model ${name}` });
      },
    },
    logging: { log: (level, _, message) => lines.push([level, message]) },
    models: {
      describe(name) {
        if (Object.hasOwn(descriptions, name)) return descriptions[name];
        if (Object.hasOwn(models, name)) return described();
        const there = Object.keys(models).join(', ');
        const payload = `the host has no model ${JSON.stringify(name)}; it has: ${there}`;
        throw Object.assign(new Error(), { payload });
      },
    },
    tensor: { Tensor: MadeTensor },
  });
  try {
    const result = await work();
    if (open !== 0) throw new Error(`${open} handles were not given back`);
    return result;
  } finally {
    Object.assign(host, before);
  }
}

/** Adds to the number that a key of a bucket has as text. */
function increment(bucket, key, by) {
  const held = bucket.get(key);
  const sum = (held ? BigInt(new TextDecoder().decode(held)) : 0n) + by;
  bucket.set(key, new TextEncoder().encode(String(sum)));
  return sum;
}

/** A pipeline as the host has it, called through its exports. */
export class Played {
  #exports;

  constructor(author) {
    this.#exports = exportPipeline(author);
    this.description = this.#exports.describe();
  }

  /** A pipeline that has been initialised. */
  static async init(author, settings = {}) {
    const played = new Played(author);
    await played.#exports.init(JSON.stringify(settings));
    return played;
  }

  /** The contract's output of a frame; its pictures are given back. */
  async process(frame) {
    const output = await this.#exports.process(frame);
    for (const { attachments } of output.events) attachments.forEach((image) => image[dispose]());
    return output;
  }

  async query(request = null) {
    return JSON.parse(await this.#exports.query(JSON.stringify(request)));
  }

  async command(request = null) {
    return JSON.parse(await this.#exports.command(JSON.stringify(request)));
  }

  snapshot() {
    return this.#exports.snapshot();
  }

  async restore(state, version = '0.0.1') {
    await this.#exports.restore(version, state);
  }
}

/** The contract's outputs of all frames of a script. */
export async function play(author, script, settings) {
  const pipeline = await Played.init(author, settings);
  const outputs = [];
  for (const frame of script) outputs.push(await pipeline.process(frame));
  return outputs;
}
