// Draws pictures on a canvas, and boxes on another above it.
import type { Boxes, Picture } from "./joiner";

/** Height of the labels, in CSS pixels. */
const LABEL_PX = 12;
/** In a narrower tile a label has its word alone. */
const SMALL_PX = 480;
const COLOURS = ["#4ea1ff", "#ffb02e", "#5fd38d", "#ff7b9c", "#c79bff", "#3fd0d4", "#f4e04d"];

/** One colour for a label, always the same. Labels stand at the boxes: the colour only helps. */
function colourOf(label: string): string {
  let sum = 0;
  for (const letter of label) sum = (sum * 31 + (letter.codePointAt(0) ?? 0)) % 9973;
  return COLOURS[sum % COLOURS.length] ?? "#ffffff";
}

/** Sides change places in orientations 5 to 8. */
const SIDEWAYS = 4;

/** For each EXIF orientation less 1: the transformation of a picture of width 1 and height 1. */
const TURNS: readonly (readonly [number, number, number, number, number, number])[] = [
  [1, 0, 0, 1, 0, 0],
  [-1, 0, 0, 1, 1, 0],
  [-1, 0, 0, -1, 1, 1],
  [1, 0, 0, -1, 0, 1],
  [0, 1, 1, 0, 0, 0],
  [0, 1, -1, 0, 1, 0],
  [0, -1, -1, 0, 1, 1],
  [0, -1, 1, 0, 0, 1],
];

export class Surface {
  readonly picture = document.createElement("canvas");
  readonly boxes = document.createElement("canvas");
  #pictures = this.picture.getContext("2d", { alpha: false });
  #drawing = this.boxes.getContext("2d");
  #observer = new ResizeObserver(() => this.#measure());
  #shown = { width: 0, height: 0 };
  #place = { width: 1, height: 1 };

  constructor(readonly parent: HTMLElement) {
    this.picture.className = "picture";
    // Nothing is shown before the first picture.
    this.picture.width = 0;
    this.boxes.className = "boxes";
    this.boxes.setAttribute("aria-hidden", "true");
    parent.append(this.picture, this.boxes);
    this.#observer.observe(parent);
    this.#measure();
  }

  /** Device pixels that the picture takes at most. */
  get pixels(): number {
    return Math.max(16, this.#place.width * devicePixelRatio);
  }

  /** Draws a picture over the whole of its canvas, which has its shape. */
  draw(picture: Picture): void {
    const sideways = picture.turn >= SIDEWAYS;
    const [width, height] = sideways
      ? [picture.height, picture.width]
      : [picture.width, picture.height];
    // A tile smaller than the picture needs no more pixels than it has.
    const scale = Math.min(1, Math.max(this.pixels / width, this.#tall / height));
    const [across, down] = [Math.round(width * scale), Math.round(height * scale)];
    const { picture: canvas } = this;
    if (canvas.width !== across || canvas.height !== down) {
      canvas.width = across;
      canvas.height = down;
    }
    this.#shown = { width, height };
    const context = this.#pictures;
    if (context === null) return;
    const [a, b, c, d, e, f] = TURNS[picture.turn] ?? [1, 0, 0, 1, 0, 0];
    const [w, h] = [canvas.width, canvas.height];
    context.setTransform(a * w, b * h, c * w, d * h, e * w, f * h);
    context.drawImage(picture.source, 0, 0, 1, 1);
    context.setTransform(1, 0, 0, 1, 0, 0);
  }

  /**
   * Draws boxes; those that no model found in their picture are dashed, those of another picture
   * dimmed besides. null: none.
   */
  overlay(boxes: Boxes | null): void {
    const context = this.#drawing;
    if (context === null) return;
    const { width, height } = this.boxes;
    context.clearRect(0, 0, width, height);
    if (boxes === null || boxes.items.length === 0) return;
    const place = this.#fitted();
    const ratio = devicePixelRatio;
    const small = this.#place.width < SMALL_PX;
    context.save();
    context.globalAlpha = boxes.exact ? 1 : 0.6;
    context.setLineDash(boxes.exact && !boxes.followed ? [] : [4 * ratio, 3 * ratio]);
    context.font = `600 ${LABEL_PX * ratio}px system-ui, sans-serif`;
    context.textBaseline = "top";
    for (const { detection, box } of boxes.items) {
      const left = place.left + (box[0] / boxes.width) * place.width;
      const top = place.top + (box[1] / boxes.height) * place.height;
      const across = (box[2] / boxes.width) * place.width;
      const down = (box[3] / boxes.height) * place.height;
      const colour = colourOf(detection.label);
      // A dark line beneath keeps the box visible on any picture.
      context.lineWidth = 4 * ratio;
      context.strokeStyle = "rgb(0 0 0 / 55%)";
      context.strokeRect(left, top, across, down);
      context.lineWidth = 2 * ratio;
      context.strokeStyle = colour;
      context.strokeRect(left, top, across, down);
      const track = detection.track === undefined ? "" : ` #${detection.track}`;
      const more = small ? "" : `${track} ${Math.round(detection.score * 100)} %`;
      const text = `${detection.label}${more}`;
      const pad = 3 * ratio;
      const size = (LABEL_PX + 6) * ratio;
      const wide = context.measureText(text).width + 2 * pad;
      // Above the box, else below, else in it.
      const below = top + down + size <= height ? top + down : top;
      const above = top - size >= 0 ? top - size : below;
      const from = Math.max(0, Math.min(left - ratio, width - wide));
      context.fillStyle = "rgb(0 0 0 / 72%)";
      context.fillRect(from, above, wide, size);
      context.fillStyle = colour;
      context.fillText(text, from + pad, above + pad);
    }
    context.restore();
  }

  close(): void {
    this.#observer.disconnect();
    // Frees the pixels at once; a canvas that is only removed keeps them for a while.
    this.picture.width = 0;
    this.boxes.width = 0;
    this.picture.remove();
    this.boxes.remove();
  }

  get #tall(): number {
    return Math.max(16, this.#place.height * devicePixelRatio);
  }

  #measure(): void {
    const { clientWidth, clientHeight } = this.parent;
    this.#place = { width: clientWidth, height: clientHeight };
    this.boxes.width = Math.round(clientWidth * devicePixelRatio);
    this.boxes.height = Math.round(clientHeight * devicePixelRatio);
  }

  /** Where the picture is within the tile, in device pixels: whole, in its own shape. */
  #fitted(): { left: number; top: number; width: number; height: number } {
    const { width, height } = this.boxes;
    const shown = this.#shown;
    if (shown.width === 0) return { left: 0, top: 0, width, height };
    const scale = Math.min(width / shown.width, height / shown.height);
    const [across, down] = [shown.width * scale, shown.height * scale];
    return { left: (width - across) / 2, top: (height - down) / 2, width: across, height: down };
  }
}
