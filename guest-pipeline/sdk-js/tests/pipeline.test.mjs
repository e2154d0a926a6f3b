/** What a class becomes: kept, guarded, and with nothing left open. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  Box,
  COCO_LABELS,
  CameraPipeline,
  Model,
  NanoDet,
  Yolo,
  budget,
  exportPipeline,
  integer,
  settings,
  tensorSpec,
} from '@ocelli/sdk';
import { FakeFrame, Played, play, withHost } from '@ocelli/sdk/testing';

class Counter extends CameraPipeline {
  static description = {
    name: 'counter',
    version: '1.0.0',
    settings: settings({ failAt: integer({ default: -1, minimum: -1 }) }),
    stateFormats: [1, 2],
  };

  init({ failAt }) {
    Object.assign(this, { failAt, seen: 0 });
  }

  process(frame) {
    this.seen += 1;
    this.deeper(frame);
    const box = Box.of(0, 0, frame.width, frame.height);
    return [{ label: 'all', score: 1, box, track: this.seen }];
  }

  deeper(frame) {
    if (frame.index === this.failAt) throw new RangeError('as asked');
  }

  query(asked) {
    return { seen: this.seen, asked };
  }

  command({ seen }) {
    this.seen = seen;
  }

  snapshot() {
    return { seen: this.seen };
  }

  restore(state, format) {
    this.seen = format === 2 ? state.seen : state.count;
    if (this.seen === undefined) throw new TypeError('nothing was seen');
  }
}

const bytes = (text) => new TextEncoder().encode(text);
const frame = (index = 0) => new FakeFrame({ index });

test('attributes of init are there in process', async () => {
  const outputs = await play(Counter, [frame(0), frame(1), frame(2)]);
  assert.deepEqual(
    outputs.map((output) => output.detections[0].track),
    [1, 2, 3],
  );
});

test('state goes to the next version', async () => {
  const [old, next] = [await Played.init(Counter), await Played.init(Counter)];
  await old.process(frame());
  await next.restore(await old.snapshot());
  assert.deepEqual(await next.query(7), { seen: 1, asked: 7 });
  await next.restore(bytes('{"format": 1, "state": {"count": 40}}'));
  assert.equal((await next.query()).seen, 40);
  assert.equal(await next.command({ seen: 3 }), null);
});

test('a state of no known format is refused in words', async () => {
  const pipeline = await Played.init(Counter);
  await assert.rejects(pipeline.restore(bytes('{"format": 3, "state": 0}')), {
    payload: 'the state of version 0.0.1 has format 3; this one reads 1, 2',
  });
  for (const wrong of ['', '[]', '{}', '17', 'null']) {
    await assert.rejects(pipeline.restore(bytes(wrong)), /of another kind/);
  }
});

test('an exception is an error with its text and its place', async () => {
  const pipeline = await Played.init(Counter, { failAt: 1 });
  await pipeline.process(frame(0));
  const error = await pipeline.process(frame(1)).catch((caught) => caught);
  const lines = error.payload.split('\n');
  assert.equal(lines[0], 'RangeError: as asked');
  assert.match(lines[1], /^ {2}in Counter\.deeper, .*pipeline\.test\.mjs:\d+:\d+$/);
  assert.match(lines[2], /^ {2}in Counter\.process, /);
  assert.equal((await pipeline.process(frame(2))).detections[0].track, 3);
});

test('what is thrown and is no error, and what is thrown later, has its text, too', async () => {
  class Odd extends Counter {
    async process({ index }) {
      await undefined;
      if (index === 0) throw { code: 7 };
      throw new SyntaxError('later');
    }
  }
  const pipeline = await Played.init(Odd);
  await assert.rejects(pipeline.process(frame(0)), { payload: 'thrown: {"code":7}' });
  await assert.rejects(pipeline.process(frame(1)), /^PipelineError: SyntaxError: later/);
});

test('settings and refusals have no stack', async () => {
  await assert.rejects(Played.init(Counter, { failAt: 'never' }), {
    payload: 'settings.failAt: "never" is not an integer',
  });
  class Quiet extends Counter {}
  Quiet.prototype.query = CameraPipeline.prototype.query;
  const quiet = await Played.init(Quiet);
  await assert.rejects(quiet.query(), { payload: 'counter answers no queries' });
  await assert.rejects(exportPipeline(Counter).process(frame()), {
    payload: 'process was called before init',
  });
});

test('a snapshot that fails is logged and empty', async () => {
  class Broken extends Counter {
    snapshot() {
      throw new Error('no state today');
    }
  }
  const lines = [];
  await withHost({ lines }, async () => {
    const pipeline = await Played.init(Broken);
    assert.equal((await pipeline.snapshot()).length, 0);
  });
  assert.match(lines[0][1], /^no snapshot: Error: no state today/);
});

test('numbers that are not finite are an error before the host sees them', async () => {
  class Bad extends Counter {
    process() {
      return [{ label: 'x', score: NaN, box: Box.of(0, 0, 1, 1) }];
    }
  }
  await assert.rejects(play(Bad, [frame()]), /not finite/);
});

test('a class without a description is refused at once', () => {
  class Nameless extends CameraPipeline {}
  assert.throws(() => exportPipeline(Nameless), /Nameless\.description has no name/);
});

const flat = () => ({ out: [[1, 2, 3], [0.1, 0.9, 0, 0.2, 0.3, 0.4]] });

test('tensors, outputs and pictures are given back, after an exception, too', async () => {
  class Leaky extends Counter {
    init() {
      this.model = new Model('flat');
    }

    process(frame) {
      const [tensor] = frame.tensor(tensorSpec(8, 8));
      const hits = this.model.run({ in: tensor }).out.best(0.35);
      frame.image(undefined, 80, 320);
      if (frame.index === 1) throw new Error('in the middle');
      const data = { best: hits.map((hit) => [hit.row, hit.class]) };
      return { detections: [], events: [{ kind: 'seen', data, attachments: [frame.image()] }] };
    }
  }
  // `withHost` fails for each handle that is open at its end, and for one given back twice.
  await withHost({ models: { flat } }, async () => {
    const pipeline = await Played.init(Leaky);
    const output = await pipeline.process(frame(0));
    assert.equal(output.events[0].data, '{"best":[[0,1],[1,2]]}');
    await assert.rejects(pipeline.process(frame(1)), /in the middle/);
  });
});

test('a tensor is consumed once and says so', async () => {
  class Twice extends Counter {
    process(frame) {
      const model = new Model('flat');
      const [tensor] = frame.tensor(tensorSpec(8, 8));
      model.run({ in: tensor });
      model.run({ in: tensor });
    }
  }
  await withHost({ models: { flat } }, () =>
    assert.rejects(play(Twice, [frame()]), /this Tensor has been given back/),
  );
});

test('what is kept outlives the call', async () => {
  class Keeping extends Counter {
    process(frame) {
      if (frame.index === 0) {
        this.kept = frame.tensor(tensorSpec(8, 8))[0].keep();
      } else {
        this.seen = this.kept.dimensions;
        this.kept.close();
      }
    }
  }
  await withHost({}, async () => {
    const pipeline = await Played.init(Keeping);
    await pipeline.process(frame(0));
    await pipeline.process(frame(1));
    assert.deepEqual((await pipeline.query()).seen, [1, 3, 8, 8]);
  });
});

test('NanoDet gives the box worked out by hand', async () => {
  const small = () => {
    const outputs = {};
    for (const stride of [8, 16, 32]) {
      const cells = (64 / stride) ** 2;
      const [scores, sides] = [new Array(cells * 80).fill(0), new Array(cells * 44).fill(-50)];
      if (stride === 16) {
        // Cell 1 of 4 x 4: its centre is (24, 8). Every distance is one stride.
        scores[80 + 2] = 0.9;
        for (const side of [0, 1, 2, 3]) sides[44 + side * 11 + 1] = 50;
      }
      outputs[`cls_s${stride}`] = [[1, cells, 80], scores];
      outputs[`reg_s${stride}`] = [[1, cells, 44], sides];
    }
    return outputs;
  };
  class Cars extends Counter {
    init() {
      this.detector = new NanoDet('small', 64);
    }

    process(frame) {
      const found = this.detector.detect(frame);
      return found.map((one) => ({ ...one, label: COCO_LABELS[one.class] }));
    }
  }
  await withHost({ models: { small } }, async () => {
    // 128 x 64 pixels at half size, with 16 rows of black above: (8..40) by (-8..24) of the tensor
    // is (16..80) by (-48..16) of the frame.
    const [{ detections }] = await play(Cars, [new FakeFrame({ width: 128, height: 64 })]);
    assert.equal(detections[0].label, 'car');
    const { x, y, width, height } = detections[0].box;
    [16 - x, y, 64 - width, 16 - height].forEach((off) => assert.ok(Math.abs(off) < 1e-3));
    assert.equal(COCO_LABELS.length, 80);
  });
});

test('a frame says what moves and where points go', async () => {
  const seen = [];
  class Moving extends Counter {
    process(frame) {
      const { regions, calibrating } = frame.motion();
      const points = [[5, 6], [90, 6]];
      seen.push([regions.map((box) => box.left), calibrating, frame.flow(points)]);
      return [];
    }
  }
  const moving = [Box.of(1, 0, 4, 4), Box.of(9, 0, 8, 8)];
  const flow = (x, y) => (x < 50 ? [x + 2, y] : undefined);
  const script = [
    new FakeFrame(),
    new FakeFrame({ index: 1, moving, flow }),
    new FakeFrame({ index: 2, moving: null }),
  ];
  await withHost({}, () => play(Moving, script));
  const stay = [[5, 6], [90, 6]];
  assert.deepEqual(seen, [
    [[], false, stay],
    [[9, 1], false, [[7, 6], undefined]],
    [[], true, stay],
  ]);
});

test('a budget is asked, and says yes after the last answer', async () => {
  class Thrifty extends Counter {
    process({ index }) {
      const source = budget.ask(index / 4) ? 'model' : 'predicted';
      return { detections: [], basis: { source } };
    }
  }
  const script = [0, 1, 2].map((index) => new FakeFrame({ index }));
  const wants = [];
  const outputs = await withHost({ budget: [false, true], wants }, () => play(Thrifty, script));
  const sources = outputs.map(({ basis }) => basis.source);
  assert.deepEqual(sources, ['predicted', 'model', 'model']);
  assert.deepEqual(wants, [0, 0.25, 0.5]);
});

test('a budget that is asked for nothing is an error of the pipeline', async () => {
  class Careless extends Counter {
    process() {
      return budget.ask(this.uncertainty) ? [] : undefined;
    }
  }
  const asked = withHost({}, () => play(Careless, [new FakeFrame()]));
  await assert.rejects(asked, /budget.ask takes a number, not undefined/);
});

test('each form of YOLO gives the same boxes', async () => {
  // In a tensor of 64 x 64 pixels: a box about (32, 32) of 16 x 8, class 1 of 3, score 0.72; one
  // that overlaps it and is worse; and one that is too low.
  const rows = [
    [32, 32, 16, 8, 0.72],
    [33, 32, 16, 8, 0.6],
    [10, 10, 4, 4, 0.1],
  ];
  const tall = rows.map(([x, y, w, h, s]) => [x, y, w, h, 0, s, 0.1]);
  const edges = rows.map(([x, y, w, h, s]) => [x - w / 2, y - h / 2, x + w / 2, y + h / 2, s, 1]);
  const forms = {
    yolov5: [[1, 3, 8], rows.flatMap(([x, y, w, h, s]) => [x, y, w, h, s / 0.9, 0, 0.9, 0.1])],
    yolov8: [[1, 7, 3], [0, 1, 2, 3, 4, 5, 6].flatMap((i) => tall.map((row) => row[i]))],
    // Suppressed by the model: the second row is empty.
    yolov10: [[1, 3, 6], [...edges[0], 0, 0, 0, 0, 0, -1, ...edges[2]]],
  };
  class Yolos extends Counter {
    init() {
      const options = { size: 64, classes: 3 };
      this.detectors = Object.keys(forms).map((form) => new Yolo(form, { ...options, form }));
    }

    process(frame) {
      const found = this.detectors.flatMap((detector) => detector.detect(frame));
      return found.map((one) => ({ ...one, label: String(one.class) }));
    }
  }
  const models = {};
  for (const [form, output] of Object.entries(forms)) models[form] = () => ({ output0: output });
  await withHost({ models }, async () => {
    // 128 x 128 pixels at half size.
    const [{ detections }] = await play(Yolos, [new FakeFrame({ width: 128, height: 128 })]);
    assert.equal(detections.length, 3);
    for (const { label, score, box } of detections) {
      assert.equal(label, '1');
      assert.ok(Math.abs(score - 0.72) < 1e-5);
      assert.deepEqual(box, { x: 48, y: 56, width: 32, height: 16 });
    }
  });
  assert.throws(() => new Yolo('any', { form: 'yolov9' }), /none of yolov8, yolov5, yolov10/);
});
