/** Boxes by their edges, and non-maximum suppression by the host. */

import { host } from '#host';
import { call } from './errors.js';

const clamp = (value, limit) => Math.min(Math.max(value, 0), limit);

/** A box by its edges, in pixels of the frame or of a tensor. The y axis points down. */
export class Box {
  constructor(left, top, right, bottom) {
    this.left = left;
    this.top = top;
    this.right = right;
    this.bottom = bottom;
  }

  static of(x, y, width, height) {
    return new Box(x, y, x + width, y + height);
  }

  static about(x, y, width, height) {
    return Box.of(x - width / 2, y - height / 2, width, height);
  }

  get width() {
    return this.right - this.left;
  }

  get height() {
    return this.bottom - this.top;
  }

  get foot() {
    return [(this.left + this.right) / 2, this.bottom];
  }

  get proper() {
    const finite = [this.left, this.top, this.right, this.bottom].every(Number.isFinite);
    return finite && this.width > 0 && this.height > 0;
  }

  get area() {
    return Math.max(this.width, 0) * Math.max(this.height, 0);
  }

  iou(other) {
    const width = Math.min(this.right, other.right) - Math.max(this.left, other.left);
    const height = Math.min(this.bottom, other.bottom) - Math.max(this.top, other.top);
    if (width <= 0 || height <= 0) return 0;
    const shared = width * height;
    return shared / (this.area + other.area - shared);
  }

  clip(width, height) {
    return new Box(
      clamp(this.left, width),
      clamp(this.top, height),
      clamp(this.right, width),
      clamp(this.bottom, height),
    );
  }

  expanded(factor) {
    const [x, y] = [(this.left + this.right) / 2, (this.top + this.bottom) / 2];
    return Box.about(x, y, this.width * factor, this.height * factor);
  }

  rect() {
    return { x: this.left, y: this.top, width: this.width, height: this.height };
  }
}

/** Non-maximum suppression within each class: the boxes that stand, best first. */
export function suppress(scored, iou = 0.5) {
  const records = scored.map(({ box, score, class: number = 0 }) => ({
    box: box.rect(),
    score,
    class: number,
  }));
  return Array.from(
    call(() => host.boxes.suppress(records, iou)),
    (place) => scored[place],
  );
}
