/** The pipelines of `docs/pipelines-in-javascript.md` run. */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { tensorSpec } from '@ocelli/sdk';
import { FakeFrame, Played, described, withHost } from '@ocelli/sdk/testing';

const PAGE = new URL('../../../docs/pipelines-in-javascript.md', import.meta.url);
const SDK = new URL('../src/index.js', import.meta.url);

/** The classes of the page; a block may use what those before it have. */
async function pipelines() {
  const blocks = [...readFileSync(PAGE, 'utf8').matchAll(/^```js\n(.*?)^```$/gms)];
  const code = blocks.map(([, block]) => block).filter((block) => !block.includes('/testing'));
  const classes = code.flatMap((block) => [...block.matchAll(/^class (\w+)/gm)]);
  const names = classes.map(([, name]) => name);
  // A block may import again what another one has: one import of all instead.
  const imports = new Set(
    code.flatMap((block) =>
      [...block.matchAll(/^import \{(.*?)\} from '@ocelli\/sdk';$/gms)].flatMap(([, list]) =>
        list.split(',').map((name) => name.trim()),
      ),
    ),
  );
  const bodies = code.map((block) => block.replace(/^import \{.*?\} from '@ocelli\/sdk';$/gms, ''));
  const text =
    `import { ${[...imports].filter(Boolean).join(', ')} } from ${JSON.stringify(SDK.href)};\n` +
    `${bodies.join('\n')}\nexport const classes = { ${names.join(', ')} };\n`;
  const module = `data:text/javascript;base64,${Buffer.from(text).toString('base64')}`;
  return (await import(module)).classes;
}

/** A person of NanoDet's, whose foot is in the lower half of a frame of 320 x 320 pixels. */
function person() {
  const outputs = {};
  for (const stride of [8, 16, 32]) {
    const cells = (320 / stride) ** 2;
    const [scores, sides] = [new Float32Array(cells * 80), new Float32Array(cells * 44).fill(-50)];
    if (stride === 32) {
      // Column 4 and line 6: about (144, 208), a stride to each side.
      const cell = 6 * 10 + 4;
      scores[cell * 80] = 0.9;
      for (const side of [0, 1, 2, 3]) sides[cell * 44 + side * 11 + 1] = 50;
    }
    outputs[`cls_s${stride}`] = [[1, cells, 80], scores];
    outputs[`reg_s${stride}`] = [[1, cells, 44], sides];
  }
  return outputs;
}

const strides = [8, 16, 32];
const nanodet = {
  family: 'nanodet',
  scores: strides.map((stride) => `cls_s${stride}`),
  sides: strides.map((stride) => `reg_s${stride}`),
  classes: 80,
  strides,
  bins: 11,
  point: 0.5,
};
const classifier = { family: 'classifier', output: 'logits', activation: 'softmax' };

/** A host with the models of the page. */
function host(work) {
  const eye = new Float32Array(84 * 2);
  [320, 320, 100, 50, 0, 0.8].forEach((value, row) => (eye[row * 2 + 1] = value));
  const models = {
    'nanodet-g-320-int8': person,
    brands: () => ({ logits: [[1, 2], [0, 2]] }),
    reid: () => ({ output: [[1, 3], [0, 3, 4]] }),
    eye: () => ({ output0: [[1, 84, 2], eye] }),
  };
  const labels = ['person'];
  const descriptions = {
    'nanodet-g-320-int8': described({ decoder: nanodet, spec: tensorSpec(320, 320), labels }),
    brands: described({
      decoder: classifier,
      spec: tensorSpec(224, 224),
      labels: ['audi', 'bmw'],
    }),
  };
  // Of the page's pipelines only `Held` asks.
  return withHost({ models, descriptions, budget: [true, false, false] }, work);
}

test('each pipeline does what the page says', async () => {
  const classes = await pipelines();
  const expected = 'Gate Follow Held Count Loiter Brands Alike Own Pictures';
  assert.deepEqual(Object.keys(classes), expected.split(' '));
  const [played, outputs] = [{}, {}];
  const frame = (index) => {
    return new FakeFrame({ index, width: 320, height: 320, seconds: index / 2 });
  };
  await host(async () => {
    for (const [name, author] of Object.entries(classes)) {
      played[name] = await Played.init(author);
      outputs[name] = [];
      for (let n = 0; n < 4; n++) outputs[name].push(await played[name].process(frame(n)));
    }
    await played.Alike.command();
    outputs.Alike.push(await played.Alike.process(frame(4)));
    // Of `Count` and of `Loiter`.
    assert.deepEqual(await played.Count.query(), { entered: 2, left: 0 });
  });
  const kinds = (name) => outputs[name].flatMap(({ events }) => events.map(({ kind }) => kind));
  const { label, track } = outputs.Follow[3].detections[0];
  assert.deepEqual([label, track], ['person', 1]);
  const sources = outputs.Held.map(({ basis }) => basis.source);
  assert.deepEqual(sources, ['model', 'predicted', 'predicted', 'model']);
  assert.equal(outputs.Held[2].basis.modelAge, 10n ** 9n);
  assert.deepEqual(outputs.Held.map(({ detections }) => detections.length), [1, 1, 1, 1]);
  assert.deepEqual(kinds('Count'), ['entered']);
  assert.deepEqual(kinds('Pictures'), ['first']);
  const [brand] = outputs.Brands[0].detections[0].attributes;
  assert.deepEqual([brand.name, brand.value], ['brand', 'bmw']);
  assert.ok(Math.abs(brand.score - 0.8808) < 1e-4);
  const alike = outputs.Alike[4].detections[0];
  assert.ok(Math.abs(alike.attributes[0].score - 1) < 1e-6);
  const length = alike.embedding.reduce((sum, number) => sum + number * number, 0);
  assert.ok(Math.abs(length - 1) < 1e-6);
  const [own] = outputs.Own[0].detections;
  assert.deepEqual([own.label, Math.round(own.box.width)], ['1', 50]);
});
