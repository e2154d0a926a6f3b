// What a form needs of a JSON Schema: one level at a time, so that a schema may refer to itself.
// What this does not know becomes a field for JSON; the host checks everything anyway.
import { type Json, type JsonObject, type Path, at, isObject, place } from "./json";

export type Schema = JsonObject;

interface Common {
  title: string | undefined;
  description: string | undefined;
  default: Json | undefined;
  /** null is a value of it. */
  nullable: boolean;
}

/** A coordinate of the picture as [x, y], 0 to 1. */
export interface PointsKind {
  kind: "points";
  least: number;
  most: number;
  /** Three corners and more: a polygon. Otherwise a line. */
  closed: boolean;
}

export type Kind =
  | { kind: "boolean" }
  | NumberKind
  | { kind: "text"; least: number; most: number; pattern: string | undefined }
  | { kind: "choice"; options: readonly Json[] }
  | { kind: "choices"; options: readonly string[] }
  | { kind: "list"; item: Schema; least: number; most: number }
  | { kind: "tuple"; items: readonly Schema[] }
  | { kind: "object"; members: readonly Member[]; others: boolean }
  | PointsKind
  | { kind: "json" };

interface NumberKind {
  kind: "number";
  whole: boolean;
  least: number | undefined;
  most: number | undefined;
  above: number | undefined;
  below: number | undefined;
}

interface Member {
  name: string;
  schema: Schema;
  required: boolean;
}

export type Field = Common & Kind;

/** References in a row; more lead in a circle. */
const MOST_REFERENCES = 16;

/** What a schema says of its value. `root` is the document, in which references lead. */
export function field(schema: Schema, root: Schema): Field {
  const own = resolved(schema, root);
  const common = {
    title: text(own["title"]),
    description: text(own["description"]),
    default: own["default"],
  };
  const [kind, nullable] = kindOf(own, root);
  return { ...common, nullable, ...kind };
}

/** The model that settings name, or the pipeline's own; null where no setting is one. */
export function modelOf(schema: Schema, settings: JsonObject): string | null {
  const own = at(schema, ["properties", "model"]);
  if (!isObject(own)) return null;
  const model = settings["model"] ?? own["default"];
  return typeof model === "string" ? model : null;
}

/** The schema with these labels for all that takes some: only the host knows those of a model. */
export function withLabels(schema: Schema, labels: readonly string[]): Schema {
  if (labels.length === 0) return schema;
  const next = { ...schema };
  const { properties, items } = schema;
  if (isObject(properties)) {
    next["properties"] = Object.fromEntries(
      Object.entries(properties).map(([name, member]) => {
        if (!isObject(member)) return [name, member];
        const isText = at(member, ["items", "type"]) === "string";
        if (name !== "labels" || !isText) return [name, withLabels(member, labels)];
        return [name, { ...member, items: { type: "string", enum: [...labels] } }];
      }),
    );
  }
  if (isObject(items)) next["items"] = withLabels(items, labels);
  return next;
}

function resolved(schema: Schema, root: Schema): Schema {
  let here = schema;
  for (let step = 0; step < MOST_REFERENCES; step++) {
    const { $ref: reference, ...rest } = here;
    if (typeof reference !== "string") return here;
    const target = reference.startsWith("#") ? at(root, pointer(reference.slice(1))) : undefined;
    if (!isObject(target)) return rest;
    here = { ...target, ...rest };
  }
  return {};
}

function pointer(text: string): string[] {
  const parts = text.split("/").slice(1);
  return parts.map(part => decodeURIComponent(part).replace(/~1/g, "/").replace(/~0/g, "~"));
}

function kindOf(schema: Schema, root: Schema): [Kind, boolean] {
  const options = "const" in schema ? [schema["const"] ?? null] : list(schema["enum"]);
  if (options.length > 0) {
    const real = options.filter(option => option !== null);
    return [{ kind: "choice", options: real }, real.length < options.length];
  }
  const variants = [...list(schema["anyOf"]), ...list(schema["oneOf"])].filter(isObject);
  if (variants.length > 0) {
    const real = variants.filter(variant => variant["type"] !== "null");
    const [only] = real;
    if (real.length !== 1 || only === undefined) return [{ kind: "json" }, false];
    const [kind] = kindOf(resolved(only, root), root);
    return [kind, real.length < variants.length];
  }
  const types = Array.isArray(schema["type"]) ? schema["type"] : [schema["type"]];
  const real = types.filter(type => type !== "null");
  const nullable = real.length < types.length;
  const type = real.length === 1 ? (real[0] ?? guessed(schema)) : undefined;
  switch (type) {
    case "boolean":
      return [{ kind: "boolean" }, nullable];
    case "integer":
    case "number":
      return [numberKind(schema, type === "integer"), nullable];
    case "string": {
      const [least, most] = [count(schema["minLength"], 0), count(schema["maxLength"], Infinity)];
      return [{ kind: "text", least, most, pattern: text(schema["pattern"]) }, nullable];
    }
    case "array":
      return [listKind(schema, root), nullable];
    case "object":
      return [objectKind(schema), nullable];
    default:
      return [{ kind: "json" }, nullable];
  }
}

function guessed(schema: Schema): string | undefined {
  if ("properties" in schema) return "object";
  if ("items" in schema || "prefixItems" in schema) return "array";
  if ("minimum" in schema || "maximum" in schema) return "number";
  return undefined;
}

function numberKind(schema: Schema, whole: boolean): NumberKind {
  const bound = (key: string) => {
    const value = schema[key];
    return typeof value === "number" ? value : undefined;
  };
  return {
    kind: "number",
    whole,
    least: bound("minimum"),
    most: bound("maximum"),
    above: bound("exclusiveMinimum"),
    below: bound("exclusiveMaximum"),
  };
}

function listKind(schema: Schema, root: Schema): Kind {
  const [least, most] = [count(schema["minItems"], 0), count(schema["maxItems"], Infinity)];
  const fixed = Array.isArray(schema["items"]) ? schema["items"] : schema["prefixItems"];
  if (Array.isArray(fixed)) return { kind: "tuple", items: fixed.filter(isObject) };
  if (!isObject(schema["items"])) return { kind: "json" };
  const item = field(schema["items"], root);
  if (item.kind === "choice" && item.options.every(option => typeof option === "string")) {
    return { kind: "choices", options: item.options.filter(option => typeof option === "string") };
  }
  if (isPoint(item, root)) return { kind: "points", least, most, closed: least >= 3 };
  // A pair of numbers, such as a size.
  if (least === most && most <= 8 && item.kind === "number") {
    return { kind: "tuple", items: Array.from({ length: most }, () => schema["items"] as Schema) };
  }
  return { kind: "list", item: schema["items"], least, most };
}

/** Two numbers from 0 to 1. */
function isPoint(item: Field, root: Schema): boolean {
  if (item.kind !== "tuple" || item.items.length !== 2) return false;
  return item.items.every(part => {
    const number = field(part, root);
    return number.kind === "number" && number.least === 0 && number.most === 1;
  });
}

function objectKind(schema: Schema): Kind {
  const properties = isObject(schema["properties"]) ? schema["properties"] : {};
  const required = list(schema["required"]);
  const members = Object.entries(properties).flatMap(([name, member]) =>
    isObject(member) ? [{ name, schema: member, required: required.includes(name) }] : [],
  );
  // The host sorts names; what has to be given comes first.
  members.sort((one, other) => Number(other.required) - Number(one.required));
  if (members.length === 0) return { kind: "json" };
  return { kind: "object", members, others: schema["additionalProperties"] !== false };
}

function list(value: Json | undefined): Json[] {
  return Array.isArray(value) ? value : [];
}

function text(value: Json | undefined): string | undefined {
  return typeof value === "string" ? value : undefined;
}

function count(value: Json | undefined, otherwise: number): number {
  return typeof value === "number" ? value : otherwise;
}

/** A value that an added element of a list begins with. */
export function blank(schema: Schema, root: Schema): Json {
  const it = field(schema, root);
  if (it.default !== undefined) return it.default;
  if (it.nullable) return null;
  switch (it.kind) {
    case "boolean":
      return false;
    case "number":
      return it.least ?? Math.max(0, it.above === undefined ? 0 : it.above + 1);
    case "text":
      return "";
    case "choice":
      return it.options[0] ?? null;
    case "tuple":
      return it.items.map(item => blank(item, root));
    case "object": {
      const needed = it.members.filter(member => member.required);
      return Object.fromEntries(needed.map(({ name, schema }) => [name, blank(schema, root)]));
    }
    case "choices":
    case "list":
    case "points":
      return [];
    case "json":
      return {};
  }
}

/** Something that is wrong with the settings, at its place: "settings.score". */
export interface Fault {
  place: string;
  message: string;
}

/** What can be told without the host. */
export function faults(schema: Schema, root: Schema, value: Json, path: Path = []): Fault[] {
  const it = field(schema, root);
  const fault = (message: string): Fault[] => [{ place: place(path), message }];
  if (value === null) return it.nullable ? [] : fault("it is missing");
  switch (it.kind) {
    case "boolean":
      return typeof value === "boolean" ? [] : fault("it is true or false");
    case "number":
      return typeof value === "number" ? numberFault(it, value).flatMap(fault) : fault("a number");
    case "text":
      if (typeof value !== "string") return fault("it is a text");
      return textFault(it, value).flatMap(fault);
    case "choice":
      return it.options.includes(value) ? [] : fault(`it is one of ${it.options.join(", ")}`);
    case "points":
      return pointsFault(it, value).flatMap(fault);
    case "choices":
      return Array.isArray(value) ? [] : fault("it is a list");
    case "list":
      if (!Array.isArray(value)) return fault("it is a list");
      return [
        ...lengthFault(it, value.length, "entries").flatMap(fault),
        ...value.flatMap((item, i) => faults(it.item, root, item, [...path, i])),
      ];
    case "tuple":
      if (!Array.isArray(value)) return fault("it is a list");
      return value.flatMap((item, i) => {
        const schema = it.items[i];
        return schema ? faults(schema, root, item, [...path, i]) : [];
      });
    case "object":
      if (!isObject(value)) return fault("it is an object");
      return it.members.flatMap(({ name, schema, required }) => {
        const member = value[name];
        if (member !== undefined) return faults(schema, root, member, [...path, name]);
        return required ? [{ place: place([...path, name]), message: "it is missing" }] : [];
      });
    case "json":
      return [];
  }
}

function numberFault(kind: NumberKind, value: number): string[] {
  const { whole, least, most, above, below } = kind;
  if (!Number.isFinite(value)) return ["it is a number"];
  if (whole && !Number.isInteger(value)) return ["it is a whole number"];
  if (least !== undefined && value < least) return [`at least ${least}`];
  if (above !== undefined && value <= above) return [`above ${above}`];
  if (most !== undefined && value > most) return [`at most ${most}`];
  if (below !== undefined && value >= below) return [`below ${below}`];
  return [];
}

function textFault(kind: Extract<Kind, { kind: "text" }>, value: string): string[] {
  const letters = [...value].length;
  if (letters === 0 && kind.least > 0) return ["it is empty"];
  if (letters < kind.least) return [`at least ${kind.least} letters`];
  if (letters > kind.most) return [`at most ${kind.most} letters`];
  try {
    const fits = kind.pattern === undefined || new RegExp(kind.pattern, "u").test(value);
    return fits ? [] : [`it does not match ${kind.pattern}`];
  } catch {
    // A pattern that only the host understands.
    return [];
  }
}

function pointsFault(kind: PointsKind, value: Json): string[] {
  return Array.isArray(value) ? lengthFault(kind, value.length, "corners") : ["it is a list"];
}

function lengthFault(
  { least, most }: { least: number; most: number },
  length: number,
  what: string,
): string[] {
  if (length < least) return [`at least ${least} ${what}`];
  if (length > most) return [`at most ${most} ${what}`];
  return [];
}

/** `settings.score: 1.5 is not at most 1; settings.x: …`, as the host tells them. */
export function toldFaults(words: string): Fault[] {
  const next = String.raw`settings(?:\.[\w-]+|\[\d+\])*`;
  const each = new RegExp(String.raw`(${next}): (?!settings[.\[:])(.*?)(?=; ${next}: |$)`, "gs");
  return [...words.matchAll(each)].map(([, place = "settings", message = ""]) => ({
    place,
    message: message.trim(),
  }));
}

/** The messages of a place; `within`: of all places in it, too. */
export function faultsAt(all: readonly Fault[], path: Path, within: boolean): string[] {
  const here = place(path);
  return all
    .filter(({ place }) => {
      if (place === here) return true;
      return within && (place.startsWith(`${here}.`) || place.startsWith(`${here}[`));
    })
    .map(fault => fault.message);
}
