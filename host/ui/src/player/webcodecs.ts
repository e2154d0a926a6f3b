// The first rung: access units go to the browser's decoder as the camera sent them.
import { h264Parameters, h265Codec } from "./nal";
import { type Job, type Rung, type RungOwner, ofJob } from "./rung";

/** Where a key unit has no parameter sets of its own: any H.264 up to 1080p. */
const ANY_H264 = "avc1.640028";
/** Failures within this many milliseconds that show that it does not work at all. */
const FAILURES = 3;
const FAILURES_MS = 10_000;
/** Units of which no picture came, at most remembered. */
const MOST_PENDING = 512;

export class WebCodecsRung implements Rung {
  #decoder: VideoDecoder | null = null;
  #codec = "";
  #keysOnly = false;
  #pending = new Map<number, Job>();
  #failures: number[] = [];

  constructor(readonly owner: RungOwner) {}

  get waiting(): number {
    return this.#decoder?.decodeQueueSize ?? 0;
  }

  keysOnly(only: boolean): void {
    this.#keysOnly = only;
  }

  delay(): void {
    // The joiner holds the pictures.
  }

  decode(job: Job): void {
    const { unit, units } = job;
    if (unit.key) this.#configure(unit.codec, units);
    const decoder = this.#decoder;
    if (decoder === null) return this.owner.needKey();
    const timestamp = Math.round(unit.pts / 1000);
    this.#pending.set(timestamp, job);
    if (this.#pending.size > MOST_PENDING) {
      const [oldest] = this.#pending.keys();
      if (oldest !== undefined) this.#pending.delete(oldest);
    }
    try {
      const type = unit.key ? "key" : "delta";
      decoder.decode(new EncodedVideoChunk({ type, timestamp, data: unit.data }));
      if (unit.key && (this.#keysOnly || job.alone)) void this.#alone(decoder);
    } catch (error) {
      this.#failed(decoder, error);
    }
  }

  close(): void {
    const decoder = this.#decoder;
    this.#decoder = null;
    this.#pending.clear();
    if (decoder !== null && decoder.state !== "closed") decoder.close();
  }

  /**
   * The unit that it has is the only one for a while. A decoder that reorders would keep the
   * picture until more come; and each has some 30 MB, of no use to a wall between its key pictures.
   */
  async #alone(decoder: VideoDecoder): Promise<void> {
    try {
      await decoder.flush();
    } catch {
      return;
    }
    const idle = this.#pending.size === 0;
    if (this.#decoder === decoder && this.#keysOnly && idle) this.close();
  }

  /** A decoder for the stream's parameters: the one that there is, if they are the same. */
  #configure(kind: string, units: readonly Uint8Array[]): void {
    const found = kind === "h265" ? h265Codec(units) : h264Parameters(units)?.codec;
    const codec = found ?? (this.#codec || ANY_H264);
    if (this.#decoder !== null && this.#decoder.state === "configured" && codec === this.#codec) {
      return;
    }
    this.close();
    this.#codec = codec;
    const decoder: VideoDecoder = new VideoDecoder({
      output: frame => this.#decoded(decoder, frame),
      error: error => this.#failed(decoder, error),
    });
    this.#decoder = decoder;
    try {
      // Without a description the units are Annex B.
      decoder.configure({ codec, optimizeForLatency: true });
    } catch (error) {
      this.#failed(decoder, error);
    }
  }

  #decoded(decoder: VideoDecoder, frame: VideoFrame): void {
    const job = this.#pending.get(frame.timestamp);
    if (this.#decoder !== decoder || job === undefined) return frame.close();
    for (const timestamp of this.#pending.keys()) {
      // Those before it that gave no picture never will, unless the decoder reorders.
      if (timestamp > frame.timestamp) break;
      this.#pending.delete(timestamp);
    }
    if (job.unit.hidden) return frame.close();
    this.owner.picture({
      ...ofJob(job),
      fleeting: false,
      width: frame.displayWidth,
      height: frame.displayHeight,
      source: frame,
      close: () => frame.close(),
    });
  }

  #failed(decoder: VideoDecoder, error: unknown): void {
    if (this.#decoder !== decoder) return;
    this.close();
    const now = performance.now();
    this.#failures = [...this.#failures.filter(at => now - at < FAILURES_MS), now];
    if (this.#failures.length >= FAILURES) {
      const said = error instanceof Error ? error.message : String(error);
      return this.owner.failed(`the decoder failed ${FAILURES} times: ${said}`);
    }
    this.owner.needKey();
  }
}
