import { expect, it } from "vitest";
import { Draft } from "./draft";
import { at, place, put } from "./json";
import {
  type Schema,
  blank,
  faults,
  faultsAt,
  field,
  modelOf,
  toldFaults,
  withLabels,
} from "./schema";

const point = { type: "array", items: { type: "number", minimum: 0, maximum: 1 } };
const schema: Schema = {
  type: "object",
  additionalProperties: false,
  properties: {
    score: { type: "number", exclusiveMinimum: 0, maximum: 1, default: 0.4 },
    labels: { type: "array", items: { enum: ["person", "car"] } },
    rate: { type: ["number", "null"], exclusiveMinimum: 0 },
    size: { type: "array", items: { type: "integer", minimum: 32 }, minItems: 2, maxItems: 2 },
    zones: {
      type: "array",
      maxItems: 2,
      items: {
        type: "object",
        required: ["name", "polygon"],
        properties: {
          name: { type: "string", minLength: 1 },
          polygon: {
            type: "array",
            minItems: 3,
            maxItems: 32,
            items: { ...point, minItems: 2, maxItems: 2 },
          },
          line: { type: "array", minItems: 2, items: { ...point, minItems: 2, maxItems: 2 } },
        },
      },
    },
    tree: { $ref: "#/$defs/node" },
  },
  $defs: {
    node: {
      type: "object",
      properties: { below: { type: "array", items: { $ref: "#/$defs/node" } } },
    },
    loop: { $ref: "#/$defs/loop" },
  },
};
const properties = schema["properties"] as Schema;
const of = (name: string) => field(properties[name] as Schema, schema);

it("finds the kind of field for each part of a schema", () => {
  expect(of("score")).toMatchObject({ kind: "number", above: 0, most: 1, default: 0.4 });
  expect(of("labels")).toMatchObject({ kind: "choices", options: ["person", "car"] });
  expect(of("rate")).toMatchObject({ kind: "number", nullable: true });
  expect(of("size")).toMatchObject({ kind: "tuple" });
  expect(field({ anyOf: [{ type: "null" }, { type: "string" }] }, {})).toMatchObject({
    kind: "text",
    nullable: true,
  });
  expect(field({ oneOf: [{ type: "string" }, { type: "number" }] }, {}).kind).toBe("json");
  expect(field({}, {}).kind).toBe("json");
});

it("tells polygons from lines, and points from other pairs", () => {
  const zones = of("zones");
  if (zones.kind !== "list") throw new Error(zones.kind);
  const item = field(zones.item, schema);
  if (item.kind !== "object") throw new Error(item.kind);
  const [, polygon, line] = item.members.map(member => field(member.schema, schema));
  expect(polygon).toMatchObject({ kind: "points", closed: true, least: 3, most: 32 });
  expect(line).toMatchObject({ kind: "points", closed: false, most: Infinity });
});

it("follows references, also into a tree, and ends where they lead in a circle", () => {
  const tree = of("tree");
  if (tree.kind !== "object") throw new Error(tree.kind);
  const below = field(tree.members[0]?.schema ?? {}, schema);
  expect(below).toMatchObject({ kind: "list" });
  expect(field({ $ref: "#/$defs/loop" }, schema).kind).toBe("json");
  expect(field({ $ref: "elsewhere.json" }, schema).kind).toBe("json");
});

it("names what is wrong at its place", () => {
  const value = { score: 1.5, zones: [{ name: "", polygon: [[0, 0]] }, {}, {}] };
  expect(faults(schema, schema, value)).toEqual([
    { place: "settings.score", message: "at most 1" },
    { place: "settings.zones", message: "at most 2 entries" },
    { place: "settings.zones[0].name", message: "it is empty" },
    { place: "settings.zones[0].polygon", message: "at least 3 corners" },
    { place: "settings.zones[1].name", message: "it is missing" },
    { place: "settings.zones[1].polygon", message: "it is missing" },
    { place: "settings.zones[2].name", message: "it is missing" },
    { place: "settings.zones[2].polygon", message: "it is missing" },
  ]);
  expect(faults(schema, schema, { score: 0.5, rate: null, labels: ["car"] })).toEqual([]);
});

it("finds the places in the host's words", () => {
  const words =
    "start: settings: settings.score: 1.5 is not at most 1; settings.zones[0].polygon[2]: " +
    "[1.0, 1.1] is not in parts; of it; settings.scores: there is no such setting";
  const told = toldFaults(words);
  expect(told).toEqual([
    { place: "settings.score", message: "1.5 is not at most 1" },
    { place: "settings.zones[0].polygon[2]", message: "[1.0, 1.1] is not in parts; of it" },
    { place: "settings.scores", message: "there is no such setting" },
  ]);
  expect(faultsAt(told, ["zones", 0, "polygon"], true)).toHaveLength(1);
  expect(faultsAt(told, ["zones", 0, "polygon"], false)).toHaveLength(0);
  expect(faultsAt(told, ["score"], true)).toHaveLength(1);
  expect(toldFaults("no camera answers")).toEqual([]);
});

it("begins elements with what they need", () => {
  const zones = of("zones");
  if (zones.kind !== "list") throw new Error(zones.kind);
  expect(blank(zones.item, schema)).toEqual({ name: "", polygon: [] });
  expect(blank({ type: "integer", minimum: 32 }, {})).toBe(32);
});

it("changes a place and leaves the old value as it was", () => {
  const before = { a: { b: [1, 2, 3] } };
  expect(put(before, ["a", "b", 1], undefined)).toEqual({ a: { b: [1, 3] } });
  expect(put(before, ["x", 0, "y"], true)).toEqual({ ...before, x: [{ y: true }] });
  expect(before).toEqual({ a: { b: [1, 2, 3] } });
  expect(at(before, ["a", "toString"])).toBeUndefined();
  expect(place(["zones", 0, "name"])).toBe("settings.zones[0].name");
});

it("undoes the steps of a drag together, and redoes them", () => {
  const draft = new Draft();
  draft.load({ score: 0.4 });
  for (const x of [0.1, 0.2, 0.3]) draft.set(["x"], x, "drag");
  draft.settle();
  draft.set(["x"], 0.9, "drag");
  expect(draft.changed.value).toEqual(["x"]);
  draft.undo();
  expect(draft.value.value).toEqual({ score: 0.4, x: 0.3 });
  draft.undo();
  expect(draft.value.value).toEqual({ score: 0.4 });
  expect([draft.canUndo.value, draft.canRedo.value]).toEqual([false, true]);
  draft.redo();
  draft.redo();
  expect(draft.value.value).toEqual({ score: 0.4, x: 0.9 });
  draft.markSaved();
  expect(draft.changed.value).toEqual([]);
  draft.set(["x"], undefined);
  expect(draft.canRedo.value).toBe(false);
});

it("has the labels of the model that the settings name", () => {
  const labels = { type: "array", items: { type: "string" } };
  const zone = { type: "object", properties: { name: { type: "string" }, labels } };
  const schema = {
    type: "object",
    properties: {
      model: { type: "string", default: "seer" },
      labels,
      zones: { type: "array", items: zone },
    },
  };
  expect(modelOf(schema, {})).toBe("seer");
  expect(modelOf(schema, { model: "mine" })).toBe("mine");
  expect(modelOf({ type: "object" }, { model: "mine" })).toBe(null);
  const chosen = withLabels(schema, ["cup", "plate"]);
  const own = field(chosen, chosen);
  if (own.kind !== "object") throw new Error(own.kind);
  const kinds = own.members.map(member => field(member.schema, chosen));
  expect(kinds[1]).toMatchObject({ kind: "choices", options: ["cup", "plate"] });
  const inner = kinds[2];
  if (inner?.kind !== "list") throw new Error(inner?.kind);
  const members = field(inner.item, chosen);
  if (members.kind !== "object") throw new Error(members.kind);
  expect(field(members.members[1]?.schema ?? {}, chosen).kind).toBe("choices");
  expect(withLabels(schema, [])).toBe(schema);
});
