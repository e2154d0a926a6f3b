// The third and fourth rung: JPEG pictures, from the camera itself or from the host's worker.
import { failure, path } from "../api/client";
import { type Job, type Rung, type RungOwner, ofJob } from "./rung";

/** JPEGs that wait for the browser's decoder; one is decoded at a time. */
const MOST_WAITING = 4;
/** Milliseconds between two pictures that are asked for, and after a refusal. */
const POLL_MS = 250;
const GRID_MS = 1000;
const STILL_MS = 10_000;
const REFUSED_MS = 2000;
/** Header with the time of the picture in its source. */
const TIME_HEADER = "ocelli-presentation-ns";

/** Draws the units of a camera that sends JPEG. */
export class MjpegRung implements Rung {
  #queue: Job[] = [];
  #busy = false;
  #closed = false;

  constructor(readonly owner: RungOwner) {}

  get waiting(): number {
    return this.#queue.length;
  }

  keysOnly(): void {
    // Every JPEG is a key picture.
  }

  delay(): void {
    // The joiner holds the pictures.
  }

  decode(job: Job): void {
    this.#queue.push(job);
    if (this.#queue.length > MOST_WAITING) this.#queue.shift();
    void this.#next();
  }

  close(): void {
    this.#closed = true;
    this.#queue = [];
  }

  async #next(): Promise<void> {
    if (this.#busy) return;
    const job = this.#queue.shift();
    if (job === undefined) return;
    this.#busy = true;
    const { unit } = job;
    try {
      const data = new Blob([unit.data as Uint8Array<ArrayBuffer>], { type: "image/jpeg" });
      const bitmap = await createImageBitmap(data);
      if (this.#closed) bitmap.close();
      else this.#shown(bitmap, job);
    } catch {
      // A damaged picture: the next is another.
    }
    this.#busy = false;
    void this.#next();
  }

  #shown(bitmap: ImageBitmap, job: Job): void {
    if (job.unit.hidden) return bitmap.close();
    this.owner.picture({ ...ofJob(job), ...drawable(bitmap) });
  }
}

/** Asks the host for the picture that its worker has decoded, again and again. */
export class PolledRung implements Rung {
  readonly waiting = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #closed = false;
  #tag = "";
  #pace = POLL_MS;
  #ending = new AbortController();

  constructor(
    readonly owner: RungOwner,
    readonly session: string,
    readonly still: boolean,
    /** Pixels that the picture is shown in. */
    readonly width: () => number,
  ) {
    void this.#ask();
  }

  keysOnly(only: boolean): void {
    this.#pace = only ? GRID_MS : POLL_MS;
  }

  delay(): void {
    // The joiner holds the pictures.
  }

  decode(): void {
    // The units are of a codec that this browser does not know.
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#ending.abort();
  }

  async #ask(): Promise<void> {
    const begun = performance.now();
    let wait = this.still ? STILL_MS : this.#pace;
    try {
      const width = Math.round(this.width());
      const where = `${path("sessions", this.session, "frame.jpg")}?width=${width}`;
      const headers: Record<string, string> =
        this.#tag === "" ? {} : { "If-None-Match": this.#tag };
      const answer = await fetch(where, { headers, signal: this.#ending.signal });
      if (answer.ok) {
        await this.#show(answer, begun);
      } else if (answer.status !== 304) {
        wait = Math.max(wait, REFUSED_MS);
        const { message } = await failure(answer, begun);
        if (!this.#closed) this.owner.told(message);
      }
    } catch {
      // Without a connection the page says so itself.
      wait = Math.max(wait, REFUSED_MS);
    }
    if (this.#closed) return;
    const left = Math.max(0, wait - (performance.now() - begun));
    this.#timer = setTimeout(() => void this.#ask(), left);
  }

  async #show(answer: Response, begun: number): Promise<void> {
    this.#tag = answer.headers.get("etag") ?? "";
    const said = answer.headers.get(TIME_HEADER);
    const bitmap = await createImageBitmap(await answer.blob());
    if (this.#closed) return bitmap.close();
    const pts = said === null ? Number.NaN : Number(said);
    this.owner.told(null);
    const latency = performance.now() - begun;
    const arrived = begun;
    this.owner.picture({ pts, arrived, stale: true, latency, turn: 0, ...drawable(bitmap) });
  }
}

function drawable(bitmap: ImageBitmap) {
  const { width, height } = bitmap;
  return { fleeting: false, width, height, source: bitmap, close: () => bitmap.close() };
}
