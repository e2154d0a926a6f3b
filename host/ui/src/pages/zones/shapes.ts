// Which settings can be drawn: lists of points, wherever the schema has them.
import { type Json, type JsonObject, type Path, at, isObject, place } from "../../settings/json";
import { type PointsKind, type Schema, blank, field } from "../../settings/schema";
import { type Points, pointsOf } from "./polygon";

/** A polygon or line of the settings. */
export interface Shape {
  /** Of its points. */
  path: Path;
  /** Of the element of a list that it belongs to; its own where it belongs to none. */
  owner: Path;
  key: string;
  name: string;
  kind: PointsKind;
  points: Points;
}

/** A list that takes further shapes, or a single shape that is not there yet. */
export interface Slot {
  /** Of the list; of the points for a single one. */
  path: Path;
  /** "zone" of the list `zones`. */
  noun: string;
  kind: PointsKind;
  /** The schema of an element, and where its points are in it; null for a single one. */
  element: { schema: Schema; points: string } | null;
  full: boolean;
}

export interface Drawables {
  shapes: readonly Shape[];
  slots: readonly Slot[];
}

/** How deep in the settings shapes are looked for: a list of objects that have points. */
const DEPTH = 3;

/** All that can be drawn of some settings. */
export function drawables(schema: Schema, settings: JsonObject): Drawables {
  const found: { shapes: Shape[]; slots: Slot[] } = { shapes: [], slots: [] };
  look(schema, schema, settings, [], DEPTH, found);
  return found;
}

function look(
  schema: Schema,
  root: Schema,
  value: Json | undefined,
  path: Path,
  depth: number,
  found: { shapes: Shape[]; slots: Slot[] },
): void {
  const it = field(schema, root);
  if (it.kind !== "object" || depth === 0) return;
  for (const member of it.members) {
    const inner = field(member.schema, root);
    const [where, there] = [[...path, member.name], at(value, [member.name])];
    if (inner.kind === "points") {
      const points = pointsOf(there);
      if (points.length > 0) found.shapes.push(shape(where, where, member.name, inner, points));
      else found.slots.push(slot(where, member.name, inner, null, false));
    } else if (inner.kind === "list") {
      const drawn = drawnIn(inner.item, root);
      if (drawn === null) continue;
      const list = Array.isArray(there) ? there : [];
      const element = { schema: inner.item, points: drawn.name };
      const noun = one(member.name);
      found.slots.push(slot(where, noun, drawn.kind, element, list.length >= inner.most));
      list.forEach((entry, index) => {
        const owner = [...where, index];
        const name = isObject(entry) && typeof entry["name"] === "string" ? entry["name"] : "";
        const points = pointsOf(at(entry, [drawn.name]));
        const shown = name || `${noun} ${index + 1}`;
        found.shapes.push(shape([...owner, drawn.name], owner, shown, drawn.kind, points));
      });
    } else {
      look(member.schema, root, there, where, depth - 1, found);
    }
  }
}

function shape(path: Path, owner: Path, name: string, kind: PointsKind, points: Points): Shape {
  return { path, owner, key: place(path), name, kind, points };
}

function slot(
  path: Path,
  noun: string,
  kind: PointsKind,
  element: Slot["element"],
  full: boolean,
): Slot {
  return { path, noun, kind, element, full };
}

/** The points of an element of a list. */
function drawnIn(schema: Schema, root: Schema): { name: string; kind: PointsKind } | null {
  const it = field(schema, root);
  if (it.kind !== "object") return null;
  for (const member of it.members) {
    const inner = field(member.schema, root);
    if (inner.kind === "points") return { name: member.name, kind: inner };
  }
  return null;
}

/** "zone" of "zones". */
function one(noun: string): string {
  return noun.replace(/ies$/, "y").replace(/s$/, "");
}

/** What an added shape is, and where: with a name of its own if it has one. */
export function added(
  { path, noun, element }: Slot,
  root: Schema,
  settings: JsonObject,
  points: Points,
): { path: Path; value: Json; points: Path } {
  const drawn: Json = points.map(([x, y]) => [x, y]);
  if (element === null) return { path, value: drawn, points: path };
  const list = at(settings, path);
  const others = Array.isArray(list) ? list : [];
  const value = blank(element.schema, root);
  const entry: JsonObject = { ...(isObject(value) ? value : {}), [element.points]: drawn };
  if (typeof entry["name"] === "string") entry["name"] = unused(noun, others);
  const where = [...path, others.length];
  return { path: where, value: entry, points: [...where, element.points] };
}

function unused(noun: string, others: readonly Json[]): string {
  const taken = new Set(others.map(other => (isObject(other) ? other["name"] : undefined)));
  let number = 1;
  while (taken.has(`${noun} ${number}`)) number += 1;
  return `${noun} ${number}`;
}
