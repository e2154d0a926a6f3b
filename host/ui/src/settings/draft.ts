// Settings that are being edited: undo and redo over all of them, drawings included.
import { computed, signal } from "@preact/signals";
import { type Json, type JsonObject, type Path, changedKeys, isObject, put, same } from "./json";

/** Changes that can be undone: a value of some kilobytes each. */
const MOST_STEPS = 200;

interface Steps {
  past: readonly JsonObject[];
  now: JsonObject;
  future: readonly JsonObject[];
}

export class Draft {
  readonly #steps = signal<Steps>({ past: [], now: {}, future: [] });
  readonly #saved = signal<JsonObject>({});
  #last: string | undefined;

  readonly value = computed(() => this.#steps.value.now);
  readonly canUndo = computed(() => this.#steps.value.past.length > 0);
  readonly canRedo = computed(() => this.#steps.value.future.length > 0);
  /** The settings that differ from the saved ones. */
  readonly changed = computed(() => changedKeys(this.#saved.value, this.value.value));

  /** Begins with what runs. */
  load(saved: JsonObject): void {
    this.#saved.value = saved;
    this.#steps.value = { past: [], now: saved, future: [] };
    this.#last = undefined;
  }

  /** What is now in the draft has been saved; undo goes on to work. */
  markSaved(): void {
    this.#saved.value = this.value.value;
  }

  /**
   * Changes a place. Changes in a row with the same `key` are undone together: those of a drag, or
   * the letters of a text.
   */
  set(path: Path, next: Json | undefined, key?: string): void {
    const { past, now } = this.#steps.value;
    const value = put(now, path, next);
    if (!isObject(value) || same(value, now)) return;
    const goesOn = key !== undefined && key === this.#last;
    const before = goesOn ? past : [...past, now].slice(-MOST_STEPS);
    this.#last = key;
    this.#steps.value = { past: before, now: value, future: [] };
  }

  /** The next change is undone by itself, whatever its key. */
  settle(): void {
    this.#last = undefined;
  }

  undo(): void {
    const { past, now, future } = this.#steps.value;
    const before = past.at(-1);
    if (before === undefined) return;
    this.#last = undefined;
    this.#steps.value = { past: past.slice(0, -1), now: before, future: [now, ...future] };
  }

  redo(): void {
    const { past, now, future } = this.#steps.value;
    const [after, ...rest] = future;
    if (after === undefined) return;
    this.#last = undefined;
    this.#steps.value = { past: [...past, now], now: after, future: rest };
  }
}
