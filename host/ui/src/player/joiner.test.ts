import { expect, it } from "vitest";
import type { Detection } from "../api/types";
import { Joiner, type Picture } from "./joiner";
import { moved } from "./motion";

const MS = 1e6;
const closed: number[] = [];

function picture(at: number, more: Partial<Picture> = {}): Picture {
  return {
    pts: at * MS,
    arrived: at,
    stale: false,
    fleeting: false,
    latency: 0,
    turn: 0,
    width: 4,
    height: 4,
    source: {} as CanvasImageSource,
    close: () => void closed.push(at),
    ...more,
  };
}

function car(x: number, track?: number): Detection {
  const one = { label: "car", score: 0.9, box: [x, 10, 20, 20], attributes: {} };
  return (track === undefined ? one : { ...one, track }) as Detection;
}

const result = (at: number, ...detections: Detection[]) => ({
  pts: at * MS,
  width: 100,
  height: 100,
  detections,
  followed: false,
});

/** A joiner that knows that results take 100 ms. */
function seasoned(): Joiner {
  const joiner = new Joiner();
  for (let at = -20; at < 0; at += 1) {
    joiner.push(picture(at), at);
    joiner.take(at + 300);
    joiner.result(result(at), at + 100);
  }
  expect(joiner.holding).toBe(0);
  closed.length = 0;
  return joiner;
}

it("says whether a model found the boxes in their picture", () => {
  const joiner = seasoned();
  for (const followed of [false, true]) {
    joiner.push(picture(followed ? 1 : 0), 0);
    joiner.result({ ...result(followed ? 1 : 0, car(5)), followed }, 60);
    expect(joiner.take(60)?.boxes).toMatchObject({ exact: true, followed });
  }
});

it("holds a picture until its own boxes are there", () => {
  const joiner = seasoned();
  joiner.push(picture(0), 0);
  expect(joiner.take(50)).toBeNull();
  joiner.result(result(0, car(5)), 60);
  const joined = joiner.take(60);
  expect(joined?.picture.pts).toBe(0);
  expect(joined?.boxes).toMatchObject({ exact: true, pts: 0 });
  expect(joined?.boxes?.items[0]?.box).toEqual([5, 10, 20, 20]);
});

it("holds no longer than most results take, and never 300 ms", () => {
  const joiner = seasoned();
  expect(joiner.hold).toBe(170);
  joiner.push(picture(0), 0);
  expect(joiner.take(169)).toBeNull();
  expect(joiner.take(170)?.boxes?.exact).toBe(false);
  for (let at = 1; at < 60; at += 1) {
    joiner.push(picture(at), at);
    joiner.take(at + 300);
    joiner.result(result(at), at + 2000);
  }
  expect(joiner.hold).toBe(300);
});

it("holds a picture that the pipeline has skipped no longer than a later one", () => {
  const joiner = seasoned();
  joiner.push(picture(0), 0);
  joiner.push(picture(40), 40);
  joiner.result(result(40, car(5)), 60);
  expect(joiner.take(60)).toMatchObject({ picture: { pts: 0 } });
  expect(joiner.take(61)).toMatchObject({ picture: { pts: 40 * MS }, boxes: { exact: true } });
});

it("draws at once in live, and marks boxes of an earlier picture", () => {
  const joiner = seasoned();
  joiner.mode = "live";
  joiner.result(result(0, car(5)), 0);
  joiner.push(picture(40), 40);
  expect(joiner.take(40)?.boxes).toMatchObject({ exact: false, pts: 0 });
});

it("never shows the boxes of a later picture, nor very old ones", () => {
  const joiner = new Joiner();
  joiner.result(result(100, car(5)), 0);
  expect(joiner.boxes(50 * MS)).toBeNull();
  expect(joiner.boxes(2000 * MS)).not.toBeNull();
  expect(joiner.boxes(2200 * MS)).toBeNull();
});

it("draws pictures that are due one after the other, and the newest if it is far behind", () => {
  const joiner = seasoned();
  for (const at of [0, 1, 2]) joiner.push(picture(at), at);
  expect([173, 174, 175].map(at => joiner.take(at)?.picture.pts)).toEqual([0, MS, 2 * MS]);
  for (const at of [10, 11, 12, 13]) joiner.push(picture(at), at);
  expect(joiner.take(300)?.picture.pts).toBe(13 * MS);
  expect(closed).toEqual([10, 11, 12]);
});

it("draws of old pictures the last, and none if a new one is there", () => {
  const joiner = seasoned();
  for (const at of [0, 1, 2]) joiner.push(picture(at, { stale: true }), 5);
  expect(joiner.take(5)?.picture.pts).toBe(2 * MS);
  joiner.push(picture(3, { stale: true }), 6);
  joiner.push(picture(4), 6);
  expect(joiner.take(176)?.picture.pts).toBe(4 * MS);
});

it("holds eight pictures at most, and none of the past of a source that began anew", () => {
  const joiner = seasoned();
  for (let at = 0; at < 10; at += 1) joiner.push(picture(at), at);
  expect(closed).toEqual([0, 1]);
  joiner.push(picture(-500), 11);
  expect(joiner.holding).toBe(1);
  joiner.clear();
  expect(closed).toHaveLength(11);
});

it("does not wait for what changes by itself", () => {
  const joiner = seasoned();
  joiner.push(picture(1, { fleeting: true }), 1);
  expect(joiner.take(1)).not.toBeNull();
});

it("moves the boxes of tracks by their speed, for half a second, and others not at all", () => {
  const before = result(0, car(10, 1), car(50));
  const now = result(100, car(20, 1), car(60));
  expect(moved(now, before, 150 * MS)).toEqual([
    [25, 10, 20, 20],
    [60, 10, 20, 20],
  ]);
  expect(moved(now, before, 5000 * MS)[0]?.[0]).toBe(70);
  expect(moved(now, null, 150 * MS)[0]?.[0]).toBe(20);
});
