// The ways of showing pictures, best first, and why a tile is not on the first.
import type { Codec } from "../api/types";

const RUNGS = ["webcodecs", "mse", "jpeg", "still"] as const;
export type RungName = (typeof RUNGS)[number];

/** How people know them. */
export const RUNG_TITLES: Record<RungName, string> = {
  webcodecs: "WebCodecs",
  mse: "Media Source",
  jpeg: "JPEG",
  still: "Still",
};

/** What the browser offers, as far as the ladder asks. */
export interface Abilities {
  /** A page of plain http on another machine has no VideoDecoder. */
  secure: boolean;
  videoDecoder: boolean;
  /** Whether VideoDecoder takes a codec string. */
  decodes(codec: string): Promise<boolean>;
  /** Whether Media Source takes a codec string. */
  plays(codec: string): boolean;
}

/** Milliseconds after which a better rung is tried again, doubled each time up to the second. */
const FIRST_RETRY_MS = 120_000;
const LAST_RETRY_MS = 1_800_000;

/** Where one tile stands. It goes down at once, and tries to go up again after minutes. */
export class Ladder {
  #floor = 0;
  #why = "";
  #retryAt = Number.POSITIVE_INFINITY;
  #wait = FIRST_RETRY_MS;

  constructor(
    readonly abilities: Abilities,
    /** `?rung=`: this rung alone, for tests and for those who want to compare. */
    readonly forced: RungName | null,
  ) {}

  /** The rung for a stream, and why it is no better one ("" on the first). */
  async choose(codec: Codec, name: string | null): Promise<{ rung: RungName; why: string }> {
    const { forced } = this;
    if (forced !== null) return { rung: forced, why: "chosen by the address (?rung=)" };
    const why = this.#why === "" ? [] : [this.#why];
    for (const rung of RUNGS.slice(this.#floor)) {
      const lacks = await this.#lacks(rung, codec, name);
      if (lacks === null) return { rung, why: why.join("; ") };
      if (!why.includes(lacks)) why.push(lacks);
    }
    return { rung: "still", why: why.join("; ") };
  }

  /** A rung failed or is too slow; the next choice is below it. */
  down(from: RungName, why: string, now: number): void {
    this.#floor = Math.min(RUNGS.indexOf(from) + 1, RUNGS.length - 1);
    this.#why = why;
    this.#retryAt = now + this.#wait;
    this.#wait = Math.min(this.#wait * 2, LAST_RETRY_MS);
  }

  /** Whether it is time to try a better rung; if so the next choice begins at the top. */
  upAgain(now: number): boolean {
    if (now < this.#retryAt) return false;
    this.#floor = 0;
    this.#why = "";
    this.#retryAt = Number.POSITIVE_INFINITY;
    return true;
  }

  async #lacks(rung: RungName, codec: Codec, name: string | null): Promise<string | null> {
    const { abilities } = this;
    if (rung === "jpeg" || rung === "still") return null;
    if (codec === "mjpeg") return "the camera sends JPEG";
    const what = codec === "h265" ? "H.265" : "H.264";
    if (rung === "mse") {
      // The mp4 writer knows H.264 alone.
      if (codec === "h265") return "this browser does not decode H.265";
      const plays = abilities.plays(name ?? "avc1.640028");
      return plays ? null : `this browser plays no ${what} by Media Source`;
    }
    if (!abilities.videoDecoder) {
      return abilities.secure
        ? "this browser has no WebCodecs"
        : "plain http: browsers give WebCodecs to https and localhost alone";
    }
    if (name === null) return codec === "h265" ? "the stream's parameters are unknown" : null;
    // Some browsers refuse the question for a name that they cannot read.
    const decodes = await abilities.decodes(name).catch(() => false);
    return decodes ? null : `this browser does not decode ${what}`;
  }
}

/** What this browser offers. */
export function abilities(): Abilities {
  const videoDecoder = typeof VideoDecoder === "function";
  return {
    secure: window.isSecureContext,
    videoDecoder,
    decodes: async codec =>
      videoDecoder && ((await VideoDecoder.isConfigSupported({ codec })).supported ?? false),
    plays: codec =>
      typeof MediaSource === "function" &&
      "requestVideoFrameCallback" in HTMLVideoElement.prototype &&
      MediaSource.isTypeSupported(`video/mp4; codecs="${codec}"`),
  };
}

/** The rung of `?rung=`, if it names one. */
export function forcedRung(query: URLSearchParams): RungName | null {
  return RUNGS.find(rung => rung === query.get("rung")) ?? null;
}
