/**
 * From a detector's outputs to boxes, by the family of their form.
 *
 * A family is named in the table `[decoder]` of a `model.toml`, whose other keys say what the
 * outputs are called and how large they are. The host looks for the rows that score enough; these
 * alone are read and decoded. Boxes are in pixels of the model's input.
 */

import { Box } from './boxes.js';
import { PipelineError } from './errors.js';

/**
 * Rows of an output that are decoded, the best first: before suppression an object has some tens of
 * them, and the Rust SDK's suppression looks at as many.
 */
const LIMIT = 1000;

const fault = (words) => {
  throw new PipelineError(words);
};

/** An output by its name. */
const named = (outputs, name) =>
  outputs[name] ?? fault(`it has no output ${name}, but ${Object.keys(outputs).join(', ')}`);

/** The rows of some hits. */
const read = (table, hits, axes) =>
  table.rows(
    hits.map((hit) => hit.row),
    { axes },
  );

const wants = (search, kind) => search.classes === undefined || search.classes.includes(kind);

/** The rows whose best of these columns, which are classes, is good enough. */
function hitsOf(search, table, { classes, axes, score = search.score } = {}) {
  const hits = table.best(score, { limit: LIMIT, axes, classes });
  return search.classes === undefined ? hits : hits.filter((hit) => wants(search, hit.class));
}

/** Rows with an objectness before their scores: `made` makes a box of a row and its number. */
function objects(search, table, classes, made) {
  // The score is the objectness times a class's, which is at most 1: the objectness bounds it.
  const hits = table.best(search.score, { limit: LIMIT, classes: [4, 1] });
  const rows = read(table, hits);
  const found = [];
  for (let i = 0; i < hits.length; i++) {
    const row = rows[i];
    if (row.length < 5 + classes) fault(`its output has ${row.length} columns, not ${5 + classes}`);
    let kind = 0;
    for (let other = 1; other < classes; other++) if (row[5 + other] > row[5 + kind]) kind = other;
    const score = row[5 + kind] * row[4];
    if (score >= search.score && wants(search, kind)) {
      found.push({ box: made(row, hits[i].row), score, class: kind });
    }
  }
  return found;
}

/** A box in shares of the picture, in pixels. */
const scaled = ([width, height], { left, top, right, bottom }) =>
  new Box(left * width, top * height, right * width, bottom * height);

const about = (row) => Box.about(row[0], row[1], row[2], row[3]);

/** What a hit and the box that belongs to it are together. */
const scored = (hit, box) => ({ box, score: hit.score, class: hit.class });

/**
 * For each level the stride, the row of its first cell and the cells in a line, the coarsest first.
 */
function levelsOf([width, height], strides, table) {
  const levels = [];
  let first = 0;
  for (const stride of strides) {
    const columns = Math.ceil(width / stride);
    levels.unshift({ stride, first, columns });
    first += columns * Math.ceil(height / stride);
  }
  const rows = table.dimensions.at(-2);
  if (rows !== first) {
    const given = `strides ${strides.join(', ')} of ${width} x ${height} pixels give ${first}`;
    fault(`its output has ${rows} rows; ${given}`);
  }
  return levels;
}

/** A cell's box: the distances from its point to the sides, in strides, are expected bins. */
function binned({ bins, point }, levels, hit, row, skipped) {
  const { stride, first, columns } = levels.find((level) => hit.row >= level.first);
  const side = (number) => expected(row, skipped + number * bins, bins) * stride;
  const x = (((hit.row - first) % columns) + point) * stride;
  const y = (Math.floor((hit.row - first) / columns) + point) * stride;
  return scored(hit, new Box(x - side(0), y - side(1), x + side(2), y + side(3)));
}

/** The mean of the bins' numbers, from 0 on, under the softmax of the logits from `first` on. */
function expected(row, first, bins) {
  let largest = -Infinity;
  for (let bin = 0; bin < bins; bin++) largest = Math.max(largest, row[first + bin]);
  let [sum, weighted] = [0, 0];
  for (let bin = 0; bin < bins; bin++) {
    const weight = Math.exp(row[first + bin] - largest);
    sum += weight;
    weighted += weight * bin;
  }
  return weighted / sum;
}

/**
 * The boxes that have one class each. `first` is the number of the first class; lower ones stand
 * for nothing.
 */
function labelled(search, outputs, labels, scores, first) {
  const kinds = wholeNumbers(named(outputs, labels));
  const values = named(outputs, scores).floats();
  if (kinds.length !== values.length) {
    fault(`it gives ${kinds.length} labels and ${values.length} scores`);
  }
  const found = [];
  for (let row = 0; row < values.length; row++) {
    const [score, kind] = [values[row], Number(kinds[row]) - first];
    if (score >= search.score && kind >= 0 && wants(search, kind)) {
      found.push({ row, score, class: kind });
    }
  }
  return found;
}

/** The numbers of a tensor of classes. */
function wholeNumbers(tensor) {
  if (tensor.type === 'FP32') return tensor.floats().map(Math.trunc);
  const kinds = { I64: BigInt64Array, I32: Int32Array, U8: Uint8Array };
  const kind = kinds[tensor.type];
  if (kind === undefined) fault(`its classes are of ${tensor.type}, which is no whole number`);
  // A copy, whose first byte lies where such numbers may.
  return new kind(Uint8Array.from(tensor.bytes()).buffer);
}

/**
 * What decodes each family's outputs. `form` is the table `[decoder]`; `search` has the `size` of
 * the input, width and height, the least `score`, and the `classes`, all where there are none.
 */
export const FAMILIES = {
  /** [1, N, 5 + classes]: middle, size, objectness, scores. */
  yolov5: (outputs, form, search) =>
    objects(search, named(outputs, form.output), form.classes, about),

  /** [1, 4 + classes, N]: a row for each of the middle, the size and the scores of all boxes. */
  yolov8(outputs, form, search) {
    const [table, axes] = [named(outputs, form.output), 'columns-rows'];
    const hits = hitsOf(search, table, { axes, classes: [4, form.classes] });
    const rows = read(table, hits, axes);
    return hits.map((hit, i) => scored(hit, about(rows[i])));
  },

  /** [1, N, 6]: edges, score and class. */
  yolov10(outputs, form, search) {
    const table = named(outputs, form.output);
    const rows = read(table, table.best(search.score, { limit: LIMIT, classes: [4, 1] }));
    const found = rows.map(([left, top, right, bottom, score, kind]) => {
      return { box: new Box(left, top, right, bottom), score, class: Math.trunc(kind) };
    });
    // Rows without a detection are filled with zeros, or with a class of -1.
    return found.filter((one) => one.class >= 0 && wants(search, one.class));
  },

  /**
   * [1, N, 5 + classes]: the middle from the cell's corner, and the logarithm of the size, both in
   * strides; objectness and scores.
   */
  yolox(outputs, form, search) {
    const table = named(outputs, form.output);
    const levels = levelsOf(search.size, form.strides, table);
    return objects(search, table, form.classes, (row, number) => {
      const { stride, first, columns } = levels.find((level) => number >= level.first);
      const [column, line] = [(number - first) % columns, Math.floor((number - first) / columns)];
      const [x, y] = [(row[0] + column) * stride, (row[1] + line) * stride];
      return Box.about(x, y, Math.exp(row[2]) * stride, Math.exp(row[3]) * stride);
    });
  },

  /**
   * Scores, and the distances to the sides as distributions over bins; one output, or two for each
   * level.
   */
  nanodet(outputs, form, search) {
    if (form.output !== undefined) {
      const table = named(outputs, form.output);
      const levels = levelsOf(search.size, form.strides, table);
      const hits = hitsOf(search, table, { classes: [0, form.classes] });
      const rows = read(table, hits);
      return hits.map((hit, i) => binned(form, levels, hit, rows[i], form.classes));
    }
    return form.strides.flatMap((stride, i) => {
      const table = named(outputs, form.scores[i]);
      const levels = levelsOf(search.size, [stride], table);
      const hits = hitsOf(search, table);
      const rows = read(named(outputs, form.sides[i]), hits);
      return hits.map((hit, place) => binned(form, levels, hit, rows[place], 0));
    });
  },

  /** A fixed number of queries, in one of three forms. */
  detr(outputs, form, search) {
    if (form.output !== undefined) {
      const table = named(outputs, form.output);
      const hits = hitsOf(search, table, { classes: [4, table.dimensions.at(-1) - 4] });
      const rows = read(table, hits);
      return hits.map((hit, i) => scored(hit, scaled(search.size, about(rows[i]))));
    }
    const boxes = named(outputs, form.boxes);
    if (form.logits !== undefined) {
      const score = Math.log(search.score / (1 - search.score));
      const hits = hitsOf(search, named(outputs, form.logits), { score });
      const rows = read(boxes, hits);
      return hits.map((hit, i) => ({
        box: scaled(search.size, about(rows[i])),
        score: 1 / (1 + Math.exp(-hit.score)),
        class: hit.class,
      }));
    }
    const hits = labelled(search, outputs, form.labels, form.scores, 0);
    const rows = read(boxes, hits);
    return hits.map((hit, i) => scored(hit, new Box(...rows[i].subarray(0, 4))));
  },

  /** Boxes by their edges, with a score for each class or with one class. */
  ssd(outputs, form, search) {
    const { first, labels, order, unit } = form;
    const scores = () => {
      const table = named(outputs, form.scores);
      return hitsOf(search, table, { classes: [first, table.dimensions.at(-1) - first] });
    };
    const hits =
      labels === undefined ? scores() : labelled(search, outputs, labels, form.scores, first);
    const rows = read(named(outputs, form.boxes), hits);
    return hits.map((hit, i) => {
      const [a, b, c, d] = rows[i];
      const box = order === 'xyxy' ? new Box(a, b, c, d) : new Box(b, a, d, c);
      return scored(hit, unit ? scaled(search.size, box) : box);
    });
  },
};
