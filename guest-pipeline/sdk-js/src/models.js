/** Models of the host's catalogue, and what the host knows of them. */

import { host } from '#host';
import { PipelineError, call, hostError } from './errors.js';
import { Tensor } from './frames.js';

/** A model by its name. Load it in `init`: the first use of it on this host takes a while. */
export class Model {
  #context;

  constructor(name) {
    this.name = name;
    try {
      this.#context = host.graph.loadByName(name).initExecutionContext();
    } catch (error) {
      throw new PipelineError(`model ${JSON.stringify(name)}: ${hostError(error).message}`);
    }
  }

  /** Runs it on named tensors, which it consumes; gives its outputs by name. */
  run(inputs) {
    const named = Object.entries(inputs).map(([name, tensor]) => [name, tensor.giveAway()]);
    const outputs = call(() => this.#context.compute(named));
    return Object.fromEntries(outputs.map(([name, raw]) => [name, new Tensor(raw)]));
  }
}

/** What the host knows of a model, by its `model.toml`. */
export function describeModel(name) {
  let raw;
  try {
    raw = host.models.describe(name);
  } catch (error) {
    // The text says all: it names the models that there are.
    throw typeof error?.payload === 'string' ? new PipelineError(error.payload) : error;
  }
  const { inputs, outputs, picture, decoder, labels } = raw;
  const shaped = (list) => list.map((one) => ({ ...one, shape: Array.from(one.shape, Number) }));
  return {
    inputs: shaped(inputs),
    outputs: shaped(outputs),
    picture,
    family: decoder?.family,
    decoder: decoder === undefined ? {} : JSON.parse(decoder.parameters),
    labels,
  };
}
