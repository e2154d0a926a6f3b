/** A pipeline is one class; `exportPipeline` makes the component's exports of it. */

import { PipelineError, text } from './errors.js';
import { Frame, closeAll } from './frames.js';
import { log } from './log.js';

/** What a pipeline inherits from; one instance serves one camera. */
export class CameraPipeline {
  init() {}

  process() {
    throw new Error(`${this.constructor.name} has no process`);
  }

  query() {
    throw new PipelineError(`${this.constructor.description.name} answers no queries`);
  }

  command() {
    throw new PipelineError(`${this.constructor.description.name} takes no commands`);
  }

  snapshot() {
    return undefined;
  }

  restore() {}
}

/** The component's exports: `export const pipeline = exportPipeline(MyPipeline)`. */
export function exportPipeline(author) {
  const described = describe(author);
  const { settings, stateFormats = [1] } = author.description;
  let kept;
  const instance = (name) => {
    if (kept === undefined) throw new PipelineError(`${name} was called before init`);
    return kept;
  };
  return {
    describe: () => described,
    init: (json) =>
      ocelliGuard(async () => {
        kept = undefined;
        const made = new author();
        const given = JSON.parse(json || '{}');
        await made.init(settings === undefined ? given : settings.read(given));
        kept = made;
      }),
    process: (frame) =>
      ocelliGuard(async () => lower(await instance('process').process(new Frame(frame)))),
    query: (json) =>
      ocelliGuard(async () => answer(await instance('query').query(request(json)))),
    command: (json) =>
      ocelliGuard(async () => answer(await instance('command').command(request(json)))),
    snapshot: async () => {
      try {
        return await ocelliGuard(async () => encode(await kept?.snapshot(), stateFormats.at(-1)));
      } catch (error) {
        // The contract gives a snapshot no error: without one, the next version begins without
        // state, and the log says why.
        log.error(`no snapshot: ${error.message}`);
        return new Uint8Array();
      }
    },
    restore: (version, state) =>
      ocelliGuard(async () => {
        const [inner, format] = decode(version, state, stateFormats);
        await instance('restore').restore(inner, format);
      }),
  };
}

/** Does the work of one call; what it throws becomes the contract's error. */
async function ocelliGuard(work) {
  try {
    return await work();
  } catch (error) {
    const said = text(error);
    // The bindings take an error's `payload` and let every other one end the instance.
    throw Object.assign(new PipelineError(said), { payload: said });
  } finally {
    closeAll();
  }
}

function describe(author) {
  const { name, version, models = [], settings } = author.description ?? {};
  if (!name || !version) {
    throw new TypeError(`${author.name}.description has no ${name ? 'version' : 'name'}`);
  }
  const needs = models.map((model) => {
    const { name, inputs = {} } = typeof model === 'string' ? { name: model } : model;
    const shapes = Object.entries(inputs).map(([input, shape]) => [input, shape.map(BigInt)]);
    return { name, inputs: shapes };
  });
  const settingsSchema = JSON.stringify(settings?.schema ?? { type: 'object' });
  return { name, version, models: needs, settingsSchema };
}

function request(json) {
  try {
    return JSON.parse(json || 'null');
  } catch (error) {
    throw new PipelineError(`the request is no JSON: ${error.message}`);
  }
}

const answer = (value) => JSON.stringify(value ?? null);

function encode(state, format) {
  if (state === undefined || state === null) return new Uint8Array();
  return new TextEncoder().encode(JSON.stringify({ format, state }));
}

function decode(version, bytes, formats) {
  let held;
  try {
    held = JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    held = undefined;
  }
  if (held === null || typeof held !== 'object' || !('format' in held && 'state' in held)) {
    throw new PipelineError(`the state of version ${version} is of another kind`);
  }
  if (!formats.includes(held.format)) {
    throw new PipelineError(
      `the state of version ${version} has format ${held.format}; ` +
        `this one reads ${formats.join(', ')}`,
    );
  }
  return [held.state, held.format];
}

/**
 * The result as the contract has it, checked: the host ends an instance for numbers that are not
 * finite, which here are an error.
 */
function lower(output) {
  if (output === undefined || output === null) {
    return { detections: undefined, events: [], basis: undefined };
  }
  const {
    detections,
    events = [],
    basis,
  } = Array.isArray(output) ? { detections: output } : output;
  const lowered = {
    detections: detections?.map(detection),
    events: events.map(event),
    basis: basis && restsOn(basis),
  };
  // Last: after an error above they go back to the host.
  events.forEach(({ attachments = [] }, i) => {
    lowered.events[i].attachments = attachments.map((image) => image.giveAway());
  });
  return lowered;
}

function restsOn({ source, modelAge = 0 }) {
  if (!['model', 'flow', 'predicted'].includes(source)) {
    throw new RangeError(`the source ${JSON.stringify(source)} is not model, flow or predicted`);
  }
  return { source, modelAge: BigInt(modelAge) };
}

function detection({ label, score, box, track, attributes = [], embedding }) {
  const rect = box.rect();
  const vector = embedding && Float32Array.from(embedding);
  if (![score, ...Object.values(rect), ...(vector ?? [])].every(Number.isFinite)) {
    throw new RangeError(`a number of the detection ${JSON.stringify(label)} is not finite`);
  }
  return { label: String(label), score, box: rect, track, attributes, embedding: vector };
}

function event({ kind, detections = [], data }) {
  return {
    kind: String(kind),
    detections: detections.map(detection),
    data: data === undefined || data === null ? '' : JSON.stringify(data),
  };
}
