/** Finds what is bright in the picture, and tells when it comes into view. */

import { Box, CameraPipeline, exportPipeline, integer, log, settings } from '@ocelli/sdk';

/** Columns and rows of the small grey picture that the host makes of each frame. */
export const [WIDTH, HEIGHT] = [160, 90];

/** The pipeline of one camera. */
export class Bright extends CameraPipeline {
  static description = {
    name: '{{name}}',
    version: '0.1.0',
    // What an operator may set for a camera.
    settings: settings({
      above: integer({
        default: 128,
        minimum: 1,
        maximum: 255,
        about: 'Grey, up to 255, from which on a pixel is bright',
      }),
    }),
  };

  init({ above }) {
    this.above = above;
    this.inView = false;
  }

  process(frame) {
    const edges = bright(frame.luma(WIDTH, HEIGHT), this.above);
    const found = [];
    if (edges) {
      const [left, top, right, bottom] = edges;
      const [across, down] = [frame.width / WIDTH, frame.height / HEIGHT];
      const box = new Box(left * across, top * down, right * across, bottom * down);
      found.push({ label: 'bright', score: 1, box });
    }
    const came = found.length > 0 && !this.inView;
    this.inView = found.length > 0;
    if (!came) return found;
    log.info(`something came into view at frame ${frame.index}`);
    return { detections: found, events: [{ kind: 'appeared', detections: found }] };
  }

  /** Whether something is in view: the next version does not report it again. */
  snapshot() {
    return { inView: this.inView };
  }

  restore({ inView }) {
    this.inView = inView === true;
  }
}

/**
 * The least box around all bright pixels: left, top, and the first column right of it and row below
 * it. A component's JavaScript is interpreted: a plain loop over few pixels is fast enough.
 */
function bright(grey, above) {
  let [left, top, right, bottom] = [WIDTH, HEIGHT, 0, 0];
  for (let y = 0, place = 0; y < HEIGHT; y++) {
    for (let x = 0; x < WIDTH; x++, place++) {
      if (grey[place] < above) continue;
      if (x < left) left = x;
      if (x >= right) right = x + 1;
      if (y < top) top = y;
      bottom = y + 1;
    }
  }
  return bottom > 0 ? [left, top, right, bottom] : undefined;
}

export const pipeline = exportPipeline(Bright);
