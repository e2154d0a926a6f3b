import { expect, it } from "vitest";
import * as polygon from "./polygon";

const square: polygon.Points = [
  [0.2, 0.2],
  [0.8, 0.2],
  [0.8, 0.8],
  [0.2, 0.8],
];

it("moves a corner by the arrows, 1 % or 5 %, and no further than the edge", () => {
  const step = polygon.arrow("ArrowRight", false);
  expect(step).toEqual([0.01, 0]);
  expect(polygon.moved(square, 1, ...(step ?? [0, 0]))[1]).toEqual([0.81, 0.2]);
  expect(polygon.arrow("ArrowUp", true)).toEqual([0, -0.05]);
  expect(polygon.arrow("Enter", false)).toBeNull();
  expect(polygon.moved(square, 0, -0.5, 0)[0]).toEqual([0, 0.2]);
  expect(polygon.placed(square, 2, [1.7, 0.123456])[2]).toEqual([1, 0.1235]);
  expect(square[0]).toEqual([0.2, 0.2]);
});

it("shifts a shape as a whole and keeps its form at the edge", () => {
  expect(polygon.shifted(square, 0.5, 0.1)).toEqual([
    [0.4, 0.3],
    [1, 0.3],
    [1, 0.9],
    [0.4, 0.9],
  ]);
  expect(polygon.shifted([], 1, 1)).toEqual([]);
});

it("adds corners between two, after the last one too", () => {
  expect(polygon.split(square, 0, true)[1]).toEqual([0.5, 0.2]);
  expect(polygon.split(square, 3, true)[4]).toEqual([0.2, 0.5]);
  const line: polygon.Points = [
    [0, 0],
    [1, 0],
  ];
  expect(polygon.split(line, 1, false)).toEqual([
    [0, 0],
    [0.5, 0],
    [1, 0],
  ]);
  expect(polygon.split(line, 7, false)).toBe(line);
});

it("takes corners away as long as enough are left", () => {
  const triangle = polygon.without(square, 1, 3);
  expect(triangle).toHaveLength(3);
  expect(polygon.without(triangle, 0, 3)).toBe(triangle);
});

it("has edges all round a polygon and not behind a line", () => {
  expect(polygon.edges(square, true)).toHaveLength(4);
  expect(polygon.edges(square, false)).toHaveLength(3);
  expect(polygon.edges(square.slice(0, 2), true)).toHaveLength(1);
});

it("knows what is inside, and how large it is", () => {
  expect(polygon.inside(square, [0.5, 0.5])).toBe(true);
  expect(polygon.inside(square, [0.9, 0.5])).toBe(false);
  expect(polygon.area(square)).toBeCloseTo(0.36);
  expect(polygon.area(square.slice(0, 2))).toBe(0);
});

it("tells a polygon that crosses itself", () => {
  const [a, b, c, d] = square as [polygon.Point, polygon.Point, polygon.Point, polygon.Point];
  expect(polygon.crossesItself(square, true)).toBe(false);
  expect(polygon.crossesItself([a, c, b, d], true)).toBe(true);
  expect(polygon.crossesItself([a, c, b, d], false)).toBe(true);
});

it("reads points from settings, whatever else is there", () => {
  expect(polygon.pointsOf([[0, 1], "x", [1], [0.5, 0.5]])).toEqual([
    [0, 1],
    [0.5, 0.5],
  ]);
  expect(polygon.pointsOf(null)).toEqual([]);
});
