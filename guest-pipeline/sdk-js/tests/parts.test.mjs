/** Settings, boxes, the tracker and zones. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  Box,
  Tracker,
  Zone,
  decimal,
  flag,
  integer,
  list,
  optional,
  settings,
  text,
} from '@ocelli/sdk';

const zone = settings({ name: text({ minLength: 1 }), open: flag({ default: true }) });
const declared = settings(
  {
    score: decimal({ default: 0.4, minimum: 0, maximum: 1, about: 'Least score' }),
    count: integer({ default: 3 }),
    labels: list(text(), { default: [] }),
    mode: text({ default: 'fast', choices: ['fast', 'good'] }),
    rate: optional(decimal()),
    zones: list(zone, { default: [], maxLength: 2 }),
  },
  { check: ({ count }) => (count === 13 ? 'count: 13 is unlucky' : undefined) },
);

test('defaults hold and are not shared', () => {
  const [first, second] = [declared.read({}), declared.read({})];
  assert.deepEqual(first, {
    score: 0.4,
    count: 3,
    labels: [],
    mode: 'fast',
    rate: null,
    zones: [],
  });
  assert.notEqual(first.labels, second.labels);
  assert.deepEqual(declared.read({ zones: [{ name: 'gate' }] }).zones, [
    { name: 'gate', open: true },
  ]);
});

test('an error names the setting, its value and what is right', () => {
  for (const [given, words] of [
    [{ score: 1.5 }, 'settings.score: 1.5 is more than 1'],
    [{ score: '1' }, 'settings.score: "1" is not a number'],
    [{ count: 1.5 }, 'settings.count: 1.5 is not an integer'],
    [{ scores: 1 }, 'settings.scores: there is no such setting; there are score, count'],
    [{ mode: 'bad' }, 'settings.mode: "bad" is none of "fast", "good"'],
    [{ zones: [{}] }, 'settings.zones[0].name: it is missing'],
    [{ zones: [{ name: '' }] }, 'settings.zones[0].name: its length 0 is less than 1'],
    [{ zones: [1, 2, 3] }, 'settings.zones: its length 3 is more than 2'],
    [{ count: 13 }, 'settings: count: 13 is unlucky'],
    [[], 'settings: [] is no object'],
  ]) {
    assert.throws(
      () => declared.read(given),
      (error) => error.message.startsWith(words),
      words,
    );
  }
  assert.throws(() => integer({ minimun: 1 }), /no rule "minimun"/);
});

test('the schema has the same rules', () => {
  const { properties } = declared.schema;
  assert.deepEqual(properties.score, {
    type: 'number',
    minimum: 0,
    maximum: 1,
    description: 'Least score',
    default: 0.4,
  });
  assert.deepEqual(properties.zones.items.required, ['name']);
  assert.equal(properties.zones.maxItems, 2);
});

test('iou is the shared area over the joint area', () => {
  const [a, b] = [Box.of(0, 0, 10, 10), Box.of(5, 0, 10, 10)];
  assert.ok(Math.abs(a.iou(b) - 50 / 150) < 1e-9);
  assert.equal(a.iou(Box.of(10, 0, 5, 5)), 0);
  assert.deepEqual(Box.of(-5, 90, 20, 20).clip(100, 100), new Box(0, 90, 15, 100));
});

const person = (x, kind = 0) => ({ box: Box.of(x, 10, 40, 80), score: 0.8, class: kind });

test('an object begins once, ends once and keeps its number', () => {
  const [tracker, story] = [new Tracker(), []];
  for (let n = 0; n < 30; n++) {
    const { tracks, began, ended } = tracker.update(n < 10 ? [person(3 * n)] : [], n / 10);
    began.forEach((track) => story.push([n, 'began', track.number]));
    ended.forEach((track) => story.push([n, 'ended', track.number]));
    if (n > 0 && n < 10) assert.equal(tracks[0].number, 1);
  }
  assert.deepEqual(story, [
    [1, 'began', 1],
    [20, 'ended', 1],
  ]);
});

test('the state of a tracker goes on, and a hostile one changes nothing', () => {
  const [old, next] = [new Tracker(), new Tracker()];
  for (let n = 0; n < 3; n++) old.update([person(n)], n / 10);
  next.restore(JSON.parse(JSON.stringify(old.state())));
  assert.equal(next.update([person(3)], 0.3).tracks[0].number, 1);
  const track = { ...old.state().tracks[0], number: 9 };
  for (const state of [{}, 7, { next: 2, tracks: [track] }, { next: 2, tracks: [{}] }]) {
    assert.throws(() => next.restore(state));
  }
  assert.equal(next.tracks.length, 1);
});

test('time that begins anew leaves no track behind, and a dwell counts from there', () => {
  const square = [[0, 0], [1, 0], [1, 1], [0, 1]];
  const [tracker, zone] = [new Tracker(), new Zone('all', square)];
  let update;
  for (const [seconds, places] of [[500, [0, 300]], [501, [0, 300]], [0, [0]], [1, [0]]]) {
    update = tracker.update(places.map((x) => person(x)), seconds);
    zone.update(tracker.tracks, update.ended, seconds, 640, 480);
    if (seconds === 0) assert.deepEqual(update.ended.map((track) => track.number), [2]);
  }
  assert.deepEqual(tracker.tracks.map((track) => track.number), [1], 'it is where it was');
  assert.equal(zone.dwell(tracker.tracks[0], 1), 1);
});

const walk = (watched, feet) => {
  const [tracker, told] = [new Tracker({ hits: 1, iou: 0.1 }), []];
  feet.forEach((x, n) => {
    const { ended } = tracker.update([person(x)], n / 10);
    for (const { dwell } of watched.update(tracker.tracks, ended, n / 10, 640, 480)) {
      told.push([n, dwell === undefined ? 'entered' : `left after ${dwell.toFixed(1)}`]);
    }
  });
  return told;
};

const right = () => new Zone('right', [[0.5, 0], [1, 0], [1, 1], [0.5, 1]]);

test('a second frame confirms, and the dwell is from the first', () => {
  // The foot is 20 px right of the left edge: inside from 300 on.
  assert.deepEqual(walk(right(), [280, 290, 310, 320, 330, 320, 310, 290, 280, 270]), [
    [3, 'entered'],
    [8, 'left after 0.5'],
  ]);
  assert.deepEqual(walk(right(), [310, 310, 290, 310, 290, 310]), [[1, 'entered']]);
});

test('the state of a zone goes on inside', () => {
  const [old, next] = [right(), right()];
  assert.equal(walk(old, [400, 400]).length, 1);
  next.restore(JSON.parse(JSON.stringify(old.state())));
  assert.deepEqual(walk(next, [400, 400]), []);
  assert.throws(() => new Zone('gate', [[0, 0]]), /gate/);
});
