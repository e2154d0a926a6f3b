/** The pipeline without a host: frames are scripted. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeFrame, Played, play, withHost } from '@ocelli/sdk/testing';
import { Bright, HEIGHT, WIDTH } from '../src/app.js';

/** A frame of a dark picture in which these pixels are bright. */
function frame(index, ...pixels) {
  const luma = new Uint8Array(WIDTH * HEIGHT).fill(20);
  for (const [x, y] of pixels) luma[y * WIDTH + x] = 250;
  return new FakeFrame({ index, luma });
}

test('the box is around all that is bright', async () => {
  await withHost({}, async () => {
    const [dark, light] = await play(Bright, [frame(0), frame(1, [10, 20], [13, 25])]);
    assert.deepEqual(dark.detections, []);
    // The frame is four times as wide and high as the grey picture.
    assert.deepEqual(light.detections[0].box, { x: 40, y: 80, width: 16, height: 24 });
    assert.deepEqual(
      light.events.map((event) => event.kind),
      ['appeared'],
    );
  });
});

test('settings are checked', async () => {
  await assert.rejects(Played.init(Bright, { above: 300 }), /settings.above: 300 is more than 255/);
});

test('the next version does not report it again', async () => {
  await withHost({}, async () => {
    const [old, next] = [await Played.init(Bright), await Played.init(Bright)];
    await old.process(frame(0, [1, 1]));
    await next.restore(await old.snapshot());
    assert.deepEqual((await next.process(frame(1, [1, 1]))).events, []);
  });
});
