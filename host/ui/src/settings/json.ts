// JSON values, and how they are changed: a change makes a new value, the old one stays as it is.

export type Json = null | boolean | number | string | Json[] | JsonObject;
export interface JsonObject {
  [key: string]: Json;
}

/** The way to a value: keys and numbers. */
export type Path = readonly (string | number)[];

export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The value at a place; undefined where there is none. */
export function at(value: Json | undefined, path: Path): Json | undefined {
  let here = value;
  for (const step of path) {
    if (typeof step === "number") here = Array.isArray(here) ? here[step] : undefined;
    else here = isObject(here) && Object.hasOwn(here, step) ? here[step] : undefined;
  }
  return here;
}

/** With another value at a place; undefined takes the place away. What lacks on the way is made. */
export function put(value: Json | undefined, path: Path, next: Json | undefined): Json {
  const [step, ...rest] = path;
  if (step === undefined) return next ?? null;
  const inner = (old: Json | undefined) => (rest.length > 0 ? put(old, rest, next) : next);
  if (typeof step === "number") {
    const list = Array.isArray(value) ? [...value] : [];
    const element = inner(list[step]);
    if (element === undefined) list.splice(step, 1);
    else list[step] = element;
    return list;
  }
  const object: JsonObject = isObject(value) ? { ...value } : {};
  const member = inner(Object.hasOwn(object, step) ? object[step] : undefined);
  if (member === undefined) delete object[step];
  else object[step] = member;
  return object;
}

/** `settings.zones[0].polygon`, as the host writes places. */
export function place(path: Path): string {
  return path.reduce<string>(
    (text, step) => (typeof step === "number" ? `${text}[${step}]` : `${text}.${step}`),
    "settings",
  );
}

export function same(one: Json | undefined, other: Json | undefined): boolean {
  if (one === other) return true;
  if (Array.isArray(one) && Array.isArray(other)) {
    return one.length === other.length && one.every((element, i) => same(element, other[i]));
  }
  if (!isObject(one) || !isObject(other)) return false;
  const keys = Object.keys(one);
  return (
    keys.length === Object.keys(other).length &&
    keys.every(key => Object.hasOwn(other, key) && same(one[key], other[key]))
  );
}

/** The keys of the settings that differ, first level only. */
export function changedKeys(one: JsonObject, other: JsonObject): string[] {
  const keys = new Set([...Object.keys(one), ...Object.keys(other)]);
  return [...keys].filter(key => !same(one[key], other[key])).sort();
}
