// The second rung: a video element, fed with an mp4 fragment for each picture. It shows them 100 ms
// late or more.
import { fragment, initialisation } from "./mp4";
import { h264Parameters } from "./nal";
import { type Job, type Rung, type RungOwner, ofJob } from "./rung";

/** NAL units that a sample has: no parameter sets (in avcC) and no delimiters. */
const LEFT_OUT = new Set([7, 8, 9]);
/** Seconds behind the newest picture, at least: networks are not even. */
const BEHIND_S = 0.1;
/** Seconds off that: beyond the first it jumps, beyond the second it plays faster or slower. */
const JUMP_S = 0.5;
const UNEVEN_S = 0.05;
const FASTER = 1.1;
const SLOWER = 0.95;
/** Seconds of past that stay in the buffer, and how much more is there before it is cut. */
const KEEP_S = 4;
const CUT_S = 8;
/** Pictures that show how far they are apart. */
const RECENT = 9;
/**
 * Durations in microseconds. A picture lasts until the next one, however long its duration; but
 * after a gap in decoding times of twice that, Media Source takes nothing before a key unit. So it
 * is four times as long as pictures are apart: B frames and lost ones make gaps.
 */
const SHORTEST_DURATION = 500_000;
const LONGEST_DURATION = 4_000_000;
/** Fragments that may wait until Media Source has opened. */
const MOST_OPENING = 250;
/** Times of pictures that are remembered to find the one that is shown. */
const MOST_TIMES = 256;

export class MseRung implements Rung {
  readonly #element = document.createElement("video");
  #media = new MediaSource();
  #url = URL.createObjectURL(this.#media);
  #buffer: SourceBuffer | null = null;
  /** Fragments, and the types that those after them have. */
  #queue: (Uint8Array | string)[] = [];
  #parameters = "";
  #base: number | null = null;
  #decode = -1;
  #last = 0;
  #duration = SHORTEST_DURATION;
  #sequence = 0;
  #recent: number[] = [];
  #closed = false;
  #behind = BEHIND_S;
  /** By the microseconds from the first picture, which is the video's own time. */
  #jobs = new Map<number, Job>();

  constructor(readonly owner: RungOwner) {
    const element = this.#element;
    element.muted = true;
    element.playsInline = true;
    element.disablePictureInPicture = true;
    element.src = this.#url;
    element.addEventListener("error", this.#broken);
    this.#watch();
  }

  get waiting(): number {
    // While it opens nothing can be taken, which is no slowness.
    const opens = this.#buffer === null && this.#queue.length < MOST_OPENING;
    return opens ? 0 : this.#queue.length;
  }

  keysOnly(): void {
    // Media Source shows what it has at once.
  }

  delay(milliseconds: number): void {
    this.#behind = Math.max(BEHIND_S, milliseconds / 1000);
  }

  decode(job: Job): void {
    if (this.#closed) return;
    const { unit, units } = job;
    if (unit.key && !this.#begin(units)) return;
    if (this.#parameters === "") return this.owner.needKey();
    this.#base ??= unit.pts;
    const presentation = Math.round((unit.pts - this.#base) / 1000);
    const step = presentation - this.#last;
    // The source began anew, or its clock was set: so does the video.
    if (step < -5_000_000 || step > 60_000_000)
      return this.owner.failed("the camera's clock jumped");
    this.#apart(presentation);
    this.#last = Math.max(this.#last, presentation);
    this.#decode = Math.max(this.#decode + 1, presentation);
    this.#sequence += 1;
    this.#jobs.set(presentation, job);
    if (this.#jobs.size > MOST_TIMES) {
      const [oldest] = this.#jobs.keys();
      if (oldest !== undefined) this.#jobs.delete(oldest);
    }
    const sample = {
      sequence: this.#sequence,
      decode: this.#decode,
      presentation,
      duration: Math.floor(this.#duration),
      key: unit.key,
      units: units.filter(one => !LEFT_OUT.has((one[0] ?? 0) & 0x1f)),
    };
    this.#queue.push(fragment(sample));
    this.#feed();
  }

  /** Learns how far pictures are apart, in the order in which they are shown. */
  #apart(presentation: number): void {
    this.#recent = [...this.#recent, presentation].slice(-RECENT);
    const sorted = [...this.#recent].sort((one, other) => one - other);
    const steps = sorted.slice(1).map((time, index) => time - (sorted[index] ?? time));
    const median = steps.sort((one, other) => one - other)[steps.length >> 1] ?? 0;
    this.#duration = Math.min(Math.max(SHORTEST_DURATION, 4 * median), LONGEST_DURATION);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#queue = [];
    this.#jobs.clear();
    this.#element.removeEventListener("error", this.#broken);
    this.#element.removeAttribute("src");
    this.#element.load();
    URL.revokeObjectURL(this.#url);
  }

  readonly #broken = (): void => {
    const said = this.#element.error?.message;
    this.#fail(said ? `Media Source failed: ${said}` : "Media Source failed");
  };

  #fail(why: string): void {
    if (!this.#closed) this.owner.failed(why);
  }

  /** Takes a key unit's parameters; false if there are none to begin with. */
  #begin(units: readonly Uint8Array[]): boolean {
    const found = h264Parameters(units);
    if (found === null) return this.#parameters !== "";
    const key = `${found.codec} ${[...found.sps].join()} ${[...found.pps].join()}`;
    if (key === this.#parameters) return true;
    this.#parameters = key;
    const type = `video/mp4; codecs="${found.codec}"`;
    const began = this.#buffer !== null;
    // In turn: not before what waits, nor while the buffer is at work.
    if (began) this.#queue.push(type);
    this.#queue.push(initialisation(found));
    if (began) return true;
    const open = () => {
      if (this.#closed || this.#buffer !== null) return;
      try {
        this.#buffer = this.#media.addSourceBuffer(type);
        this.#buffer.addEventListener("updateend", () => this.#updated());
        this.#feed();
      } catch (error) {
        this.#fail(`Media Source refuses ${type}: ${String(error)}`);
      }
    };
    if (this.#media.readyState === "open") open();
    else this.#media.addEventListener("sourceopen", open, { once: true });
    return true;
  }

  #feed(): void {
    const buffer = this.#buffer;
    if (buffer === null || buffer.updating || this.#closed) return;
    const next = this.#queue.shift();
    if (next === undefined) return;
    try {
      if (typeof next === "string") {
        buffer.changeType(next);
        return this.#feed();
      }
      buffer.appendBuffer(next as Uint8Array<ArrayBuffer>);
    } catch (error) {
      this.#fail(`Media Source takes no more: ${String(error)}`);
    }
  }

  #updated(): void {
    const element = this.#element;
    const buffer = this.#buffer;
    if (buffer === null || this.#closed) return;
    const { buffered } = buffer;
    if (this.#queue.length > 0 || buffered.length === 0) return this.#feed();
    const start = buffered.start(buffered.length - 1);
    const newest = this.#last / 1e6;
    // Beyond the newest picture it plays on, as if there were more.
    const off = newest - element.currentTime - this.#behind;
    if (Math.abs(off) > JUMP_S || element.currentTime < start) {
      element.currentTime = Math.max(start, newest - this.#behind);
    }
    element.playbackRate = off > UNEVEN_S ? FASTER : off < -UNEVEN_S ? SLOWER : 1;
    // A muted video may play by itself; one that is being removed says so.
    if (element.paused) void element.play().catch(() => undefined);
    if (newest - buffered.start(0) > KEEP_S + CUT_S && !buffer.updating) {
      buffer.remove(0, newest - KEEP_S);
    }
  }

  /** Tells of each picture that the element shows. */
  #watch(): void {
    const element = this.#element;
    const shown: VideoFrameRequestCallback = (_, { mediaTime, width, height }) => {
      if (this.#closed) return;
      element.requestVideoFrameCallback(shown);
      const job = this.#nearest(Math.round(mediaTime * 1e6));
      if (job === null || job.unit.hidden) return;
      const source = { width, height, source: element, close: () => undefined };
      this.owner.picture({ ...ofJob(job), fleeting: true, ...source });
    };
    element.requestVideoFrameCallback(shown);
  }

  /** The picture of a time of the video, which rounds it. */
  #nearest(microseconds: number): Job | null {
    let best: { job: Job; off: number } | null = null;
    for (const [time, job] of this.#jobs) {
      const off = Math.abs(time - microseconds);
      if (best === null || off < best.off) best = { job, off };
    }
    return best !== null && best.off < 5000 ? best.job : null;
  }
}
