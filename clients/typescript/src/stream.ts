// Server-sent events, and the pauses between two connections.

/** Milliseconds: a host restarts within a second, and after a long failure it is found soon enough. */
const FIRST_PAUSE = 100;
const LONGEST_PAUSE = 10_000;

/** A message as it came: an `id` alone has no `data`. */
export interface Received {
  id: number | null;
  data: string;
}

/** The messages. The host writes the `data` of each on one line; comments are passed over. */
export async function* received(
  body: ReadableStream<Uint8Array>,
  heard: () => void,
): AsyncGenerator<Received, void, undefined> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  // Pieces of a line that has not ended: joined once.
  let pieces: string[] = [];
  let message: Received = { id: null, data: "" };
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      heard();
      const [first = "", ...lines] = decoder.decode(value, { stream: true }).split("\n");
      pieces.push(first);
      for (const line of lines) {
        const whole = pieces.join("");
        pieces = [line];
        if (whole.startsWith("id:")) message.id = Number(whole.slice(3));
        else if (whole.startsWith("data:")) message.data = whole.slice(5).trim();
        else if (whole.trim() === "" && (message.id !== null || message.data !== "")) {
          yield message;
          message = { id: null, data: "" };
        }
      }
    }
  } finally {
    // It may have failed already.
    await reader.cancel().catch(() => undefined);
  }
}

/** How long to wait before the next connection. */
export class Backoff {
  #failures = 0;

  /** A message has come. */
  reset(): void {
    this.#failures = 0;
  }

  /**
   * Milliseconds, doubled with each failure in a row. Half of it is random: clients of a host that
   * was restarted do not all come at once.
   */
  next(): number {
    const longest = Math.min(FIRST_PAUSE * 2 ** Math.min(this.#failures, 16), LONGEST_PAUSE);
    this.#failures += 1;
    return longest * (0.5 + Math.random() / 2);
  }
}

/** Resolves after so long; rejects once `signal` is aborted. */
export function pause(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const aborted = (): void => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", aborted);
      resolve();
    }, milliseconds);
    signal?.addEventListener("abort", aborted, { once: true });
  });
}
