/** Detectors by the host's description: the same objects in each family's form. */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import {
  CameraPipeline,
  Classifier,
  Detector,
  cosine,
  describeModel,
  tensorSpec,
  unit,
} from '@ocelli/sdk';
import { FakeFrame, described, play, withHost } from '@ocelli/sdk/testing';
import { classes } from '../src/classify.js';

/** What the tests of all SDKs read. */
const PLACE = new URL('../../../tests/golden/families.json', import.meta.url);
const SHARED = JSON.parse(readFileSync(PLACE, 'utf8'));

/** A scripted output: shape, numbers, type. */
function output({ shape, values, rows = {}, type = 'FP32' }) {
  if (values !== undefined) return [shape, values, type];
  const [count, columns] = shape.slice(-2);
  const numbers = new Float32Array(count * columns);
  for (const [row, part] of Object.entries(rows)) numbers.set(part, Number(row) * columns);
  return [shape, numbers, type];
}

/** Finds what a described detector finds. */
class Finder extends CameraPipeline {
  static description = { name: 'finder', version: '1.0.0' };

  init(options) {
    this.detector = new Detector('eye');
    this.options = options;
  }

  process(frame) {
    const found = this.detector.detect(frame, this.options);
    return found.map((one) => ({ ...one, label: this.detector.label(one.class) }));
  }
}

const close = (got, wanted, off) => assert.ok(Math.abs(got - wanted) < off, `${got}, ${wanted}`);

const families = new Set();
for (const { name, decoder, outputs } of SHARED.cases) {
  families.add(decoder.family);
  test(`the boxes of ${name}`, async () => {
    const [width, height] = SHARED.size;
    const inputs = [];
    const eye = (given) => {
      inputs.push(given);
      return Object.fromEntries(Object.entries(outputs).map(([at, one]) => [at, output(one)]));
    };
    const spec = tensorSpec(width, height);
    const known = described({ decoder, spec, labels: ['a', 'b', 'c'] });
    await withHost({ models: { eye }, descriptions: { eye: known } }, async () => {
      // The frame is twice as wide and high as the input.
      const frame = new FakeFrame({ width: 2 * width, height: 2 * height });
      const [{ detections }] = await play(Finder, [frame]);
      const [only] = await play(Finder, [frame], { classes: [0] });
      assert.deepEqual(
        only.detections.map((one) => one.label),
        ['a'],
      );
      assert.equal(detections.length, SHARED.expected.length);
      detections.forEach(({ label, score, box }, i) => {
        const wanted = SHARED.expected[i];
        const edges = [box.x, box.y, box.x + box.width, box.y + box.height];
        assert.equal(label, 'abc'[wanted.class]);
        close(score, wanted.score, 1e-3);
        edges.forEach((edge, side) => close(edge, 2 * wanted.box[side], 0.02));
      });
    });
    const sizes = inputs[0][decoder.sizes];
    const got = sizes && [sizes.shape, [...sizes.values]];
    assert.deepEqual(got, decoder.sizes && [[1, 2], SHARED.size.map(BigInt)]);
  });
}

test('all families are there', () => assert.equal(families.size, 7));

const spec = tensorSpec(16, 16);
const finished = { family: 'yolov10', output: 'rows' };

test('a model that is not described is refused with what it lacks', async () => {
  for (const [known, words] of [
    [described(), /^model eye: .*no \[decoder\]/],
    [described({ decoder: finished }), /no \[preprocessing\]/],
    [described({ decoder: { family: 'yolov99' }, spec }), /yolov99.* knows yolov5, yolov8/],
    [described({ decoder: { family: 'classifier' }, spec }), /classifier/],
  ]) {
    await withHost({ models: { eye: {} }, descriptions: { eye: known } }, () => {
      assert.throws(() => new Detector('eye'), { name: 'PipelineError', message: words });
    });
  }
  await withHost({ models: { eye: {} } }, () => {
    assert.throws(() => describeModel('eyes'), { message: /no model "eyes"; it has: eye/ });
  });
});

test('outputs that do not fit are an error with the name of the model', async () => {
  const decoder = { family: 'yolox', output: 'out', classes: 3, strides: [8, 16] };
  const descriptions = { eye: described({ decoder, spec }) };
  for (const [outputs, words] of [
    [{ out: [[1, 7, 8], new Array(56).fill(0)] }, /model eye: its output has 7 rows/],
    [{ other: [[1, 1, 8], new Array(8).fill(0)] }, /model eye: it has no output out, but other/],
  ]) {
    await withHost({ models: { eye: () => outputs }, descriptions }, async () => {
      await assert.rejects(play(Finder, [new FakeFrame()]), words);
    });
  }
});

test('classes by their labels', async () => {
  const eye = described({ decoder: finished, spec, labels: ['person', 'car'] });
  await withHost({ models: { eye: {} }, descriptions: { eye } }, () => {
    const detector = new Detector('eye');
    assert.deepEqual(detector.classes(['car']), [1]);
    assert.equal(detector.classes([]), undefined);
    assert.equal(detector.label(7), 'class 7');
    assert.throws(() => detector.classes(['car', 'persn']), {
      name: 'SettingsError',
      message: 'settings.labels[1]: no label "persn"; there are person, car',
    });
  });
});

test('classes and their scores', async () => {
  const found = classes([1, 6, 3].map(Math.log));
  assert.deepEqual(
    found.map(([number]) => number),
    [1, 2, 0],
  );
  close(found[0][1], 0.6, 1e-6);
  assert.deepEqual(classes([-1e9, 0], 'sigmoid')[0], [1, 0.5]);
  assert.deepEqual(classes([0.1, 0.9, 0.9], 'none')[0], [1, 0.9]);
  assert.throws(() => classes([NaN]), /not finite/);
  await withHost({ models: { eye: {} }, descriptions: { eye: described() } }, () => {
    assert.throws(() => new Classifier('eye'), /no classifier/);
  });
});

test('how alike vectors are', () => {
  assert.equal(cosine([1, 0], [0, 3]), 0);
  close(cosine([1, 1], [-2, -2]), -1, 1e-6);
  assert.deepEqual(unit([3, 4]), Float32Array.of(0.6, 0.8));
  assert.throws(() => cosine([0, 0], [1, 1]), /zero or not finite/);
  assert.throws(() => cosine([NaN], [1]), /not finite/);
  assert.throws(() => cosine([1], [1, 0]), /1 and 2 numbers/);
});
