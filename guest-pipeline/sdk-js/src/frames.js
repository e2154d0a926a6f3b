/**
 * Frames, tensors and pictures. Pixels stay with the host; these are handles.
 *
 * What a call takes from the host is given back when the call ends: the garbage collector would
 * come too late, or never, since the bindings forget a handle's finaliser once it has been used.
 */

import { host } from '#host';
import { Box } from './boxes.js';
import { call, dispose } from './errors.js';

/** Handles that the call in progress has taken. A component serves one call at a time. */
const taken = new Set();

class Handle {
  #raw;

  constructor(raw) {
    this.#raw = raw;
    taken.add(this);
  }

  /** The handle for a call that borrows it. */
  use() {
    if (this.#raw === undefined) {
      throw new Error(`this ${this.constructor.name} has been given back to the host`);
    }
    return this.#raw;
  }

  /** The handle for a call that consumes it. */
  giveAway() {
    const raw = this.use();
    this.#raw = undefined;
    taken.delete(this);
    return raw;
  }

  close() {
    const raw = this.#raw;
    this.#raw = undefined;
    taken.delete(this);
    raw?.[dispose]();
  }

  keep() {
    taken.delete(this);
    return this;
  }

  [dispose]() {
    this.close();
  }
}

/** Gives back all that was taken; the glue calls it after each call. */
export function closeAll() {
  for (const handle of taken) handle.close();
}

/** A tensor in the session's shared memory: of a frame, or a model's output. */
export class Tensor extends Handle {
  static ofFloats(dimensions, values) {
    const data = new Uint8Array(Float32Array.from(values).buffer);
    return new Tensor(new host.tensor.Tensor(Uint32Array.from(dimensions), 'FP32', data));
  }

  static ofIntegers(dimensions, values) {
    const data = new Uint8Array(BigInt64Array.from(values, BigInt).buffer);
    return new Tensor(new host.tensor.Tensor(Uint32Array.from(dimensions), 'I64', data));
  }

  get dimensions() {
    return Array.from(this.use().dimensions());
  }

  get type() {
    return this.use().ty();
  }

  bytes() {
    return this.use().data();
  }

  floats() {
    if (this.type !== 'FP32') throw new Error(`the tensor is of ${this.type}, not of FP32`);
    const { buffer, byteOffset, byteLength } = this.bytes();
    return new Float32Array(buffer, byteOffset, byteLength / 4);
  }

  best(threshold, { limit = 300, axes = 'rows-columns', classes } = {}) {
    const columns = classes && { first: classes[0], count: classes[1] };
    return call(() => host.boxes.best(this.use(), axes, columns, threshold, limit));
  }

  rows(rows, { axes = 'rows-columns' } = {}) {
    if (rows.length === 0) return [];
    const numbers = call(() => host.boxes.rows(this.use(), axes, Uint32Array.from(rows)));
    const width = numbers.length / rows.length;
    // Views, since each copy would be garbage that is collected late.
    return Array.from(rows, (_, i) => numbers.subarray(i * width, (i + 1) * width));
  }
}

/** A JPEG on the host's side, to attach to an event. */
export class Image extends Handle {
  get size() {
    return Number(this.use().size());
  }
}

/** A letterboxed f32 NCHW tensor in RGB with black borders, unless `other` says otherwise. */
export function tensorSpec(width, height, other = {}) {
  return {
    width,
    height,
    fit: 'letterbox',
    channels: 'rgb',
    layout: 'nchw',
    element: 'f32',
    fill: [0, 0, 0],
    mean: [0, 0, 0],
    std: [1, 1, 1],
    ...other,
  };
}

/** Where a frame lies in a tensor, and back from there. */
export class Letterbox {
  constructor(width, height, placement) {
    this.width = width;
    this.height = height;
    this.placement = placement;
  }

  inFrame(box) {
    const { scaleX, scaleY, offsetX, offsetY } = this.placement;
    return new Box(
      (box.left - offsetX) / scaleX,
      (box.top - offsetY) / scaleY,
      (box.right - offsetX) / scaleX,
      (box.bottom - offsetY) / scaleY,
    ).clip(this.width, this.height);
  }

  inTensor(box) {
    const { scaleX, scaleY, offsetX, offsetY } = this.placement;
    return new Box(
      box.left * scaleX + offsetX,
      box.top * scaleY + offsetY,
      box.right * scaleX + offsetX,
      box.bottom * scaleY + offsetY,
    );
  }
}

/** One decoded picture of the camera; it is there until `process` returns. */
export class Frame {
  #raw;
  #known = new Map();

  constructor(raw) {
    this.#raw = raw;
    // The bindings give the frame back at the end of the call, and a frame of which no method was
    // called once more when it is collected: that would be the handle of something else by then.
    this.#once('index', Number);
  }

  #once(name, convert = (value) => value) {
    if (!this.#known.has(name)) this.#known.set(name, convert(this.#raw[name]()));
    return this.#known.get(name);
  }

  get index() {
    return this.#once('index', Number);
  }

  get captureTime() {
    return this.#once('captureTime');
  }

  get presentationTime() {
    return this.#once('presentationTime');
  }

  get seconds() {
    return Number(this.presentationTime) / 1e9;
  }

  get width() {
    return this.#once('width');
  }

  get height() {
    return this.#once('height');
  }

  get skipped() {
    return this.#once('skipped', Number);
  }

  tensor(spec, region) {
    const [raw, place] = call(() => this.#raw.tensor(region?.rect(), spec));
    return [new Tensor(raw), new Letterbox(this.width, this.height, place)];
  }

  tensors(spec, regions) {
    const rects = regions.map((region) => region.rect());
    const [raw, places] = call(() => this.#raw.tensors(rects, spec));
    const found = places.map((place) => new Letterbox(this.width, this.height, place));
    return [new Tensor(raw), found];
  }

  warp(toFrame, spec) {
    return new Tensor(call(() => this.#raw.warp(toFrame, spec)));
  }

  luma(width, height) {
    return call(() => this.#raw.luma(width, height));
  }

  motion() {
    const { regions, share, calibrating } = call(() => this.#raw.motion());
    const box = ({ x, y, width, height }) => Box.of(x, y, width, height);
    return { regions: regions.map(box), share, calibrating };
  }

  flow(points) {
    const found = call(() => this.#raw.flow(points.map(([x, y]) => ({ x, y }))));
    return found.map((point) => (point ? [point.x, point.y] : undefined));
  }

  image(region, quality = 80, longest) {
    const rect = region?.rect();
    const make = () =>
      longest === undefined
        ? this.#raw.image(rect, quality)
        : this.#raw.imageWithin(rect, longest, quality);
    return new Image(call(make));
  }
}
