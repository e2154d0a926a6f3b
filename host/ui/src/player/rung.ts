// What every way of decoding has in common.
import type { Picture } from "./joiner";
import type { Unit } from "./header";

/** What a rung tells its player. */
export interface RungOwner {
  /** A decoded picture, which the player closes. */
  picture(picture: Picture): void;
  /** This rung shows nothing here: the next below is to be taken. */
  failed(why: string): void;
  /** The host refuses a picture, in words for people; null: it does not any more. */
  told(refusal: string | null): void;
  /** The decoder lost its references: nothing before the next key unit. */
  needKey(): void;
}

/** A unit that is to be decoded, with its NAL units where the codec has them. */
export interface Job {
  unit: Unit;
  units: readonly Uint8Array[];
  /** It was old when it arrived. */
  stale: boolean;
  /** It is a key unit, and no other unit comes before the next one. */
  alone: boolean;
}

/** What a picture has of its unit. It has been decoded just now. */
export function ofJob({ unit, stale }: Job) {
  const { pts, arrived, age, turn } = unit;
  return { pts, arrived, stale, turn, latency: age + performance.now() - arrived };
}

export interface Rung {
  /** Units that wait to be decoded. */
  readonly waiting: number;
  decode(job: Job): void;
  /** Each picture is a key picture: none has to wait for the order of the next ones. */
  keysOnly(only: boolean): void;
  /** Milliseconds by which pictures are to be late, so that their boxes are there. */
  delay(milliseconds: number): void;
  close(): void;
}
