/** The session's own keys and values, which outlive restarts and versions. */

import { host } from '#host';
import { call } from './errors.js';

/** A named part of the session's store. A call is a transaction: its writes are kept together. */
export class Bucket {
  #raw;

  constructor(name) {
    this.#raw = call(() => host.store.open(name));
  }

  get(key) {
    return call(() => this.#raw.get(key)) ?? undefined;
  }

  set(key, value) {
    call(() => this.#raw.set(key, value));
  }

  delete(key) {
    call(() => this.#raw.delete(key));
  }

  getJson(key) {
    const value = this.get(key);
    return value === undefined ? undefined : JSON.parse(new TextDecoder().decode(value));
  }

  setJson(key, value) {
    this.set(key, new TextEncoder().encode(JSON.stringify(value)));
  }

  increment(key, by = 1) {
    return Number(call(() => host.atomics.increment(this.#raw, key, BigInt(by))));
  }
}
