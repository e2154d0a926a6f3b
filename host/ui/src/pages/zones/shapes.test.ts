import { expect, it } from "vitest";
import { put } from "../../settings/json";
import type { Schema } from "../../settings/schema";
import { first } from "./polygon";
import { added, drawables } from "./shapes";

const points = (least: number) => ({
  type: "array",
  minItems: least,
  items: {
    type: "array",
    items: { type: "number", minimum: 0, maximum: 1 },
    minItems: 2,
    maxItems: 2,
  },
});
const schema: Schema = {
  type: "object",
  properties: {
    score: { type: "number" },
    zones: {
      type: "array",
      maxItems: 2,
      items: {
        type: "object",
        required: ["name", "polygon"],
        properties: { name: { type: "string" }, polygon: points(3) },
      },
    },
    gate: { type: "object", properties: { line: points(2) } },
  },
};
const square = first(true).map(([x, y]) => [x, y]);

it("finds polygons in lists and lines by themselves", () => {
  const settings = {
    zones: [{ name: "door", polygon: square }],
    gate: {
      line: [
        [0, 0],
        [1, 1],
      ],
    },
  };
  const { shapes, slots } = drawables(schema, settings);
  expect(shapes.map(({ key, name, kind }) => [key, name, kind.closed])).toEqual([
    ["settings.zones[0].polygon", "door", true],
    ["settings.gate.line", "line", false],
  ]);
  expect(slots.map(({ noun, full }) => [noun, full])).toEqual([["zone", false]]);
});

it("offers what is not there, and nothing where the list is full", () => {
  const { slots } = drawables(schema, { zones: [{ polygon: square }, { polygon: square }] });
  expect(slots.map(({ noun, full }) => [noun, full])).toEqual([
    ["zone", true],
    ["line", false],
  ]);
});

it("adds a shape with what its element needs and a name of its own", () => {
  const settings = { zones: [{ name: "zone 1", polygon: square }] };
  const slot = drawables(schema, settings).slots[0];
  if (slot === undefined) throw new Error("no slot");
  const { path, value, points } = added(slot, schema, settings, first(true));
  expect(points).toEqual(["zones", 1, "polygon"]);
  const next = put(settings, path, value);
  expect(next).toEqual({
    zones: [...settings.zones, { name: "zone 2", polygon: square }],
  });
});

it("finds nothing where nothing can be drawn", () => {
  const plain: Schema = { type: "object", properties: { score: { type: "number" } } };
  expect(drawables(plain, { score: 1 })).toEqual({ shapes: [], slots: [] });
});
