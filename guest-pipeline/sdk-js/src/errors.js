/** Errors of pipelines and of the host, and how they read in the operator's log. */

/** Of a deep stack the innermost calls: the host cuts a message at 8 KiB. */
const CALLS_SHOWN = 8;

/** Functions of the SDK that say nothing about a fault. */
const OWN = /^(?:new )?(?:HostError|hostError|call|exportPipeline.*|Object\.\w+)$/;

/** The glue's own function, which ends the author's part of a stack. */
export const GUARD = 'ocelliGuard';

/** What disposes of a handle, in engines with and without the symbol. */
export const dispose = Symbol.dispose ?? Symbol.for('dispose');

/** An error whose text says all that the operator needs: it is shown without a stack. */
export class PipelineError extends Error {
  name = 'PipelineError';
}

/** Settings that make no sense; the text begins with the setting's path. */
export class SettingsError extends PipelineError {
  name = 'SettingsError';
}

/** A call to the host that failed. `kind` is its code, such as `out-of-memory`. */
export class HostError extends Error {
  name = 'HostError';

  constructor(kind, text) {
    super(text ? `${kind}: ${text}` : kind);
    this.kind = kind;
  }
}

/** Calls the host; its error becomes a `HostError`. */
export function call(work) {
  try {
    return work();
  } catch (error) {
    throw hostError(error);
  }
}

/** What the host says is wrong. An error of wasi:nn is a handle, which is given back. */
export function hostError(error) {
  if (error === null || typeof error !== 'object' || !Object.hasOwn(error, 'payload')) return error;
  const { payload } = error;
  if (typeof payload === 'string') return new HostError('refused', payload);
  if (typeof payload?.code === 'function') {
    const found = new HostError(payload.code(), payload.data());
    payload[dispose]();
    return found;
  }
  return new HostError(payload?.tag ?? 'failed', String(payload?.val ?? ''));
}

/** What the operator reads: what went wrong and, of a fault in the code, where. */
export function text(error) {
  if (!(error instanceof Error)) return `thrown: ${shown(error)}`;
  if (error instanceof PipelineError) return error.message;
  const calls = places(error.stack ?? '');
  const lines = [`${error.name}: ${error.message}`, ...calls.slice(0, CALLS_SHOWN)];
  if (calls.length > CALLS_SHOWN) lines.push(`  in ${calls.length - CALLS_SHOWN} more calls`);
  if (error.cause !== undefined) lines.push(`after ${text(error.cause)}`);
  return lines.join('\n');
}

function shown(value) {
  try {
    return JSON.stringify(value) ?? String(value);
  } catch {
    return String(value);
  }
}

/** The calls of a stack, innermost first: `name@file:line:column`, or V8's `at name (file...)`. */
function places(stack) {
  const found = [];
  for (const line of stack.split('\n')) {
    const spider = /^(.*?)@(.+:\d+:\d+)$/.exec(line);
    const v8 = /^\s+at (?:async )?(?:(.*?) \()?(.+?:\d+:\d+)\)?$/.exec(line);
    const [, name, place] = spider ?? v8 ?? [];
    if (place === undefined) continue;
    if (name?.includes(GUARD)) break;
    if (OWN.test(name)) continue;
    found.push(`  in ${name?.replace(/[<\/]+$/, '') || 'a function'}, ${place}`);
  }
  return found;
}
