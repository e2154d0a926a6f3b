import { signal } from "@preact/signals";

/** Milliseconds that a message stays; one with an undo stays longer. */
const STAYS_MS = 5000;
const UNDO_MS = 10_000;
/** More would cover the page: the oldest goes. */
const MOST = 4;

interface Toast {
  id: number;
  text: string;
  bad: boolean;
  undo: (() => void) | undefined;
}

const toasts = signal<readonly Toast[]>([]);
let nextId = 0;

/** Says what was done, with a way back where there is one. */
export function toast(text: string, options: { bad?: boolean; undo?: () => void } = {}): void {
  const { bad = false, undo } = options;
  const one = { id: nextId++, text, bad, undo };
  toasts.value = [...toasts.value, one].slice(-MOST);
  setTimeout(() => drop(one.id), undo ? UNDO_MS : STAYS_MS);
}

function drop(id: number): void {
  toasts.value = toasts.value.filter(one => one.id !== id);
}

/** Where they appear; once in the layout. */
export function Toasts() {
  return (
    <div class="toasts" role="status" aria-live="polite">
      {toasts.value.map(one => (
        <div key={one.id} class={one.bad ? "toast bad" : "toast"}>
          <span>{one.text}</span>
          {one.undo && (
            <button
              type="button"
              onClick={() => {
                one.undo?.();
                drop(one.id);
              }}
            >
              Undo
            </button>
          )}
          <button type="button" class="plain" aria-label="Close" onClick={() => drop(one.id)}>
            ×
          </button>
        </div>
      ))}
    </div>
  );
}
