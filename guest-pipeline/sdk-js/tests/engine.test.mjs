/** The engine's constants are found, and nothing else is changed. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CONSTANTS, constant, tuned } from '../bin/engine.mjs';

/** Code with these constants between instructions. */
const code = (values) => Buffer.concat(values.flatMap((value) => [value, Buffer.from([0x1a])]));

/** The number that an `i64.const` has, and its length. */
function read(bytes) {
  assert.equal(bytes[0], 0x42);
  let [value, shift, at] = [0n, 0n, 1];
  for (; ; at++) {
    value |= BigInt(bytes[at] & 0x7f) << shift;
    shift += 7n;
    if (bytes[at] < 0x80) break;
  }
  return [BigInt.asUintN(64, value), at + 1];
}

test('each constant gets its new value in the place of the old one', () => {
  const engine = code(CONSTANTS.map(({ from }) => constant(from)));
  const made = tuned(engine);
  assert.equal(made.length, engine.length);
  let at = 0;
  for (const { from, to } of CONSTANTS) {
    const [value, length] = read(made.subarray(at));
    assert.equal(value, (BigInt(to[1]) << 32n) | BigInt(to[0]));
    assert.equal(length, constant(from).length);
    at += length + 1;
  }
  assert.equal(at, engine.length);
});

test('a negative number and a longer form are what they were', () => {
  assert.deepEqual([...constant([0xffffffff, 0xffffffff])], [0x42, 0x7f]);
  assert.deepEqual([...constant([0xffffffff, 0xffffffff], 3)], [0x42, 0xff, 0xff, 0x7f]);
  assert.deepEqual([...constant([2, 0], 3)], [0x42, 0x82, 0x80, 0x00]);
});

test('another engine is not touched', () => {
  const all = CONSTANTS.map(({ from }) => constant(from));
  assert.equal(tuned(code(all.slice(1))), undefined);
  assert.equal(tuned(code([...all, all[2]])), undefined);
});
