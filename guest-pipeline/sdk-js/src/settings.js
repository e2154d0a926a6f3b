/** Typed settings: a declaration is the fields, their defaults, their ranges and the schema. */

import { SettingsError } from './errors.js';

const MISSING = Symbol('no default');

const KEYWORDS = {
  number: ['default', 'minimum', 'maximum', 'about'],
  text: ['default', 'minLength', 'maxLength', 'choices', 'about'],
  list: ['default', 'minLength', 'maxLength', 'about'],
  flag: ['default', 'about'],
};

const shown = (value) => {
  const json = JSON.stringify(value) ?? String(value);
  return json.length <= 60 ? json : `${json.slice(0, 57)}...`;
};

const refuse = (at, value, what) => {
  throw new SettingsError(`${at}: ${shown(value)} is ${what}`);
};

function field(kind, rules, schema, read) {
  for (const rule of Object.keys(rules)) {
    if (!KEYWORDS[kind].includes(rule)) {
      throw new TypeError(`there is no rule ${shown(rule)}, but ${KEYWORDS[kind].join(', ')}`);
    }
  }
  const told = { ...schema };
  if (rules.about !== undefined) told.description = rules.about;
  if (rules.default !== undefined) told.default = rules.default;
  return { schema: told, read, standard: rules.default === undefined ? MISSING : rules.default };
}

function number(rules, type, isRight, noun) {
  const { minimum, maximum } = rules;
  const range = {};
  if (minimum !== undefined) range.minimum = minimum;
  if (maximum !== undefined) range.maximum = maximum;
  return field('number', rules, { type, ...range }, (value, at) => {
    if (!isRight(value)) refuse(at, value, `not ${noun}`);
    if (value < minimum) refuse(at, value, `less than ${minimum}`);
    if (value > maximum) refuse(at, value, `more than ${maximum}`);
    return value;
  });
}

function checkLength(value, { minLength, maxLength }, at) {
  for (const [limit, wrong, word] of [
    [minLength, value.length < minLength, 'less'],
    [maxLength, value.length > maxLength, 'more'],
  ]) {
    if (wrong) {
      throw new SettingsError(`${at}: its length ${value.length} is ${word} than ${limit}`);
    }
  }
}

/** A whole number. */
export const integer = (rules = {}) =>
  number(rules, 'integer', Number.isSafeInteger, 'an integer');

/** A number. */
export const decimal = (rules = {}) => number(rules, 'number', Number.isFinite, 'a number');

/** True or false. */
export const flag = (rules = {}) =>
  field('flag', rules, { type: 'boolean' }, (value, at) =>
    typeof value === 'boolean' ? value : refuse(at, value, 'not true or false'),
  );

/** A text, or one of `choices`. */
export function text(rules = {}) {
  const { choices, minLength, maxLength } = rules;
  const schema = { type: 'string' };
  if (choices !== undefined) schema.enum = choices;
  if (minLength !== undefined) schema.minLength = minLength;
  if (maxLength !== undefined) schema.maxLength = maxLength;
  return field('text', rules, schema, (value, at) => {
    if (typeof value !== 'string') refuse(at, value, 'not a text');
    if (choices !== undefined && !choices.includes(value)) {
      refuse(at, value, `none of ${choices.map(shown).join(', ')}`);
    }
    checkLength(value, rules, at);
    return value;
  });
}

/** A list of values of one kind. */
export function list(item, rules = {}) {
  const schema = { type: 'array', items: item.schema };
  if (rules.minLength !== undefined) schema.minItems = rules.minLength;
  if (rules.maxLength !== undefined) schema.maxItems = rules.maxLength;
  return field('list', rules, schema, (value, at) => {
    if (!Array.isArray(value)) refuse(at, value, 'no list');
    checkLength(value, rules, at);
    return value.map((one, i) => item.read(one, `${at}[${i}]`));
  });
}

/** A value that may be null, as it is by default. */
export const optional = (inner) => ({
  schema: { anyOf: [inner.schema, { type: 'null' }], default: null },
  read: (value, at) => (value === null ? null : inner.read(value, at)),
  standard: null,
});

/** An object of named settings, nested or the whole. */
export function settings(fields, { about, check } = {}) {
  const names = Object.keys(fields);
  const schema = {
    type: 'object',
    additionalProperties: false,
    properties: Object.fromEntries(names.map((name) => [name, fields[name].schema])),
  };
  if (about !== undefined) schema.description = about;
  const required = names.filter((name) => fields[name].standard === MISSING);
  if (required.length > 0) schema.required = required;
  const read = (value, at = 'settings') => {
    if (value === null || typeof value !== 'object' || Array.isArray(value)) {
      refuse(at, value, 'no object');
    }
    for (const name of Object.keys(value)) {
      if (!Object.hasOwn(fields, name)) {
        const there = names.length > 0 ? `there are ${names.join(', ')}` : 'there are none';
        throw new SettingsError(`${at}.${name}: there is no such setting; ${there}`);
      }
    }
    const made = {};
    for (const name of names) {
      const { standard, read: readField } = fields[name];
      if (Object.hasOwn(value, name)) made[name] = readField(value[name], `${at}.${name}`);
      else if (standard === MISSING) throw new SettingsError(`${at}.${name}: it is missing`);
      else made[name] = structuredCopy(standard);
    }
    const wrong = check?.(made);
    if (wrong) throw new SettingsError(`${at}: ${wrong}`);
    return made;
  };
  return { schema, read, standard: MISSING };
}

/** A copy of a default, so that instances do not share it. */
const structuredCopy = (value) =>
  value !== null && typeof value === 'object' ? JSON.parse(JSON.stringify(value)) : value;
