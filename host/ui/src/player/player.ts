// One tile's pictures: from the messages of `watch` to the canvas, by the best rung that works.
import { signal } from "@preact/signals";
import type { Codec, DetectionsMessage, Pictures } from "../api/types";
import { type PictureSink, type Watch, on, wantDetections, watch } from "../state/live";
import { type Counters, counters, forget, sample } from "./counters";
import { DropRule } from "./drop";
import { type Unit, readUnit } from "./header";
import { type Boxes, type Joined, Joiner, type Mode, type Picture } from "./joiner";
import { MjpegRung, PolledRung } from "./jpeg";
import { Ladder, RUNG_TITLES, type RungName, abilities } from "./ladder";
import { Lateness } from "./lateness";
import { MseRung } from "./mse";
import { h264Parameters, h265Codec, nalUnits } from "./nal";
import type { Rung, RungOwner } from "./rung";
import { Surface } from "./surface";
import { WebCodecsRung } from "./webcodecs";

/** A unit older than this is a joiner's past, and drawn only if nothing newer is there. */
const STALE_MS = 500;
/** Units that wait while the browser is asked what it decodes: a joiner's whole GOP. */
const MOST_EARLY = 600;
/** Milliseconds without a unit after which the host's last picture is shown, if it has one. */
const NOTHING_MS = 3000;
/** Milliseconds without a unit that are a pause of the camera. */
const PAUSE_MS = 2000;
/** Milliseconds after which a picture that was left out is told no longer. */
const DROPS_SHOWN_MS = 5000;

interface PlayerOptions {
  pictures: Pictures;
  mode: Mode;
  boxes: boolean;
  /** `?rung=` */
  forced: RungName | null;
}

interface PlayerState {
  rung: RungName | null;
  /** Why it is no better rung; "" on the first. */
  why: string;
  /** Size of the camera's pictures, turned as they are shown, once it is known. */
  size: { width: number; height: number } | null;
  codec: string;
  /** The host's refusal, in words for people. */
  refused: string | null;
}

export class Player implements PictureSink, RungOwner {
  /** What the tile tells of its pictures. */
  readonly state = signal<PlayerState>({
    rung: null,
    why: "",
    size: null,
    codec: "",
    refused: null,
  });
  /** When the last picture was drawn, and when one was last left out: of `Date.now()`. */
  readonly drawn = signal<number | null>(null);
  readonly slow = signal(false);

  #options: PlayerOptions;
  #surface: Surface;
  #joiner = new Joiner();
  #rule = new DropRule();
  #lateness = new Lateness();
  #ladder: Ladder;
  #rung: Rung | null = null;
  #chosen = "";
  #choosing = false;
  #early: Unit[] = [];
  #counters: Counters;
  #watch: Watch;
  #ends: (() => void)[] = [];
  #boxesEnd: (() => void) | null = null;
  /** No key unit has come since `watch` was answered: it begins anew by itself. */
  #joining = true;
  #received = 0;
  #frame: number | null = null;
  #nothing: ReturnType<typeof setTimeout> | undefined;
  #slowTimer: ReturnType<typeof setTimeout> | undefined;
  #asked = performance.now();
  #closed = false;

  constructor(
    readonly session: string,
    parent: HTMLElement,
    options: PlayerOptions,
  ) {
    this.#options = options;
    this.#joiner.mode = options.mode;
    this.#surface = new Surface(parent);
    this.#ladder = new Ladder(abilities(), options.forced);
    this.#counters = counters(session);
    this.#ends.push(on("detections", message => this.#result(message)));
    this.#wantBoxes();
    this.#watch = watch(session, this);
  }

  get pictures(): Pictures {
    const { pictures } = this.#options;
    // What this browser cannot decode is needed only to notice that the codec changes.
    return pictures === "all" && this.#rung instanceof PolledRung ? "key" : pictures;
  }

  setMode(mode: Mode): void {
    this.#joiner.mode = mode;
  }

  /** How many pictures are needed: none of a tile that nobody sees. */
  setPictures(pictures: Pictures): void {
    if (pictures === this.#options.pictures) return;
    this.#options = { ...this.#options, pictures };
    if (pictures === "none") this.#leave();
    else this.#asked = performance.now();
    this.#wantBoxes();
    this.#rung?.keysOnly(pictures === "key");
    this.#watch.changed();
  }

  close(): void {
    this.#closed = true;
    this.#watch.end();
    for (const end of this.#ends) end();
    this.#boxesEnd?.();
    this.#leave();
    if (this.#frame !== null) cancelAnimationFrame(this.#frame);
    clearTimeout(this.#slowTimer);
    clearTimeout(this.#nothing);
    this.#surface.close();
    forget(this.session, this.#counters);
  }

  watching(): void {
    this.#rule.restart();
    this.#lateness = new Lateness();
    this.#joining = true;
    this.#set({ refused: null });
    clearTimeout(this.#nothing);
    this.#nothing = setTimeout(() => this.#wait(), NOTHING_MS);
  }

  /** Results are wanted as long as pictures are. */
  #wantBoxes(): void {
    const { boxes, pictures } = this.#options;
    const wanted = boxes && pictures !== "none";
    if (wanted) this.#boxesEnd ??= wantDetections(this.session);
    if (wanted || this.#boxesEnd === null) return;
    this.#boxesEnd();
    this.#boxesEnd = null;
  }

  /** The camera sends nothing: what it sent last is better. */
  #wait(): void {
    if (this.#closed || this.#rung !== null || this.pictures === "none") return;
    this.#take("still", "mjpeg");
    // The next key unit chooses anew.
    this.#chosen = "";
    this.#set({ why: "the camera sends nothing" });
  }

  refused(reason: string): void {
    this.#leave();
    this.#set({ refused: reason });
  }

  unit(message: ArrayBuffer): void {
    if (this.#closed || this.pictures === "none") return;
    const unit = readUnit(message, performance.now());
    if (unit === null) return;
    const own = this.#counters;
    own.received += 1;
    if (unit.discontinuity && !this.#joining) {
      own.discontinuities += 1;
      // After a pause it was the camera that had gone.
      if (unit.arrived - this.#received < PAUSE_MS) this.#tellSlow();
    }
    this.#received = unit.arrived;
    if (unit.key) this.#joining = false;
    const units = unit.codec === "mjpeg" ? [] : nalUnits(unit.data);
    if (unit.key) this.#choose(unit, units);
    if (!this.#choosing) this.#decode(unit, units);
    else if (this.#early.length < MOST_EARLY) this.#early.push(unit);
  }

  #decode(unit: Unit, units: readonly Uint8Array[]): void {
    const rung = this.#rung;
    if (rung === null || rung instanceof PolledRung) return;
    const now = performance.now();
    const late = this.#lateness.of(unit);
    const verdict = this.#rule.judge(unit.key, rung.waiting, late, now);
    if (verdict === "skip") {
      this.#dropped();
      // Below a camera's own JPEGs there is nothing better.
      if (!(rung instanceof MjpegRung) && this.#rule.tooSlow(now))
        this.failed(`${RUNG_TITLES[this.state.value.rung ?? "webcodecs"]} fell behind`);
      return;
    }
    if (verdict === "alone") this.#tellSlow();
    rung.decode({ unit, units, stale: unit.age > STALE_MS, alone: verdict === "alone" });
  }

  picture(picture: Picture): void {
    if (this.#closed || this.#rung === null) return picture.close();
    const { latency, stale, fleeting } = picture;
    if (!stale) sample(this.#counters.decodeMs, latency);
    this.#joiner.push(picture, performance.now());
    if (fleeting) this.#draw();
    else this.#schedule();
  }

  failed(why: string): void {
    const { rung } = this.state.value;
    if (this.#closed || rung === null) return;
    this.#ladder.down(rung, why, performance.now());
    this.#leave();
    // From a key unit on, without waiting for the camera's next.
    this.#watch.again();
  }

  told(refusal: string | null): void {
    if (refusal !== this.state.value.refused) this.#set({ refused: refusal });
  }

  needKey(): void {
    this.#rule.needKey();
  }

  /** Takes the rung for a stream, which a key unit tells all about. */
  #choose(unit: Unit, units: readonly Uint8Array[]): void {
    const parameters = unit.codec === "h264" ? h264Parameters(units) : null;
    const name = unit.codec === "h265" ? h265Codec(units) : (parameters?.codec ?? null);
    const stream = `${unit.codec} ${name ?? ""}`;
    const again = this.#ladder.upAgain(performance.now());
    if (this.#choosing || (stream === this.#chosen && this.#rung !== null && !again)) return;
    this.#choosing = true;
    void this.#ladder.choose(unit.codec, name).then(({ rung, why }) => {
      this.#choosing = false;
      const early = this.#early.splice(0);
      if (this.#closed || this.pictures === "none") return;
      // A camera's own JPEGs and others have rungs of one name.
      const same = this.#chosen.startsWith(`${unit.codec} `) && rung === this.state.value.rung;
      this.#chosen = stream;
      if (this.#rung === null || !same) this.#take(rung, unit.codec);
      this.#counters.reason = why;
      this.#set({ why, codec: name ?? unit.codec });
      this.#watch.changed();
      for (const one of early) {
        this.#decode(one, one.codec === "mjpeg" ? [] : nalUnits(one.data));
      }
    });
  }

  #take(name: RungName, codec: Codec): void {
    this.#rung?.close();
    this.#joiner.clear();
    this.#rule.restart();
    this.#rung = this.#make(name, codec);
    // Not `pictures`, which is less for a rung that asks by itself.
    this.#rung.keysOnly(this.#options.pictures === "key");
    this.#counters.rung = name;
    this.#set({ rung: name });
  }

  #make(name: RungName, codec: Codec): Rung {
    switch (name) {
      case "webcodecs":
        return new WebCodecsRung(this);
      case "mse":
        return new MseRung(this);
      case "jpeg":
      case "still":
        if (name === "jpeg" && codec === "mjpeg") return new MjpegRung(this);
        return new PolledRung(this, this.session, name === "still", () => this.#surface.pixels);
    }
  }

  /** Ends the rung; the next key unit takes one again. */
  #leave(): void {
    this.#rung?.close();
    this.#rung = null;
    this.#joiner.clear();
    this.#rule.restart();
  }

  #result(message: DetectionsMessage): void {
    const { presentation_ns: pts } = message;
    if (message.session !== this.session) return;
    const { width, height, detections, source } = message;
    // Without a source a model ran on every frame.
    const followed = source === "flow" || source === "predicted";
    if (this.#rung instanceof PolledRung) this.#sized({ width, height });
    this.#joiner.result({ pts, width, height, detections, followed }, performance.now());
    this.#rung?.delay(this.#joiner.hold);
    // The picture was not held for so long, or not at all: its boxes come after it.
    if (pts === this.#counters.last) {
      const boxes = this.#joiner.boxes(pts);
      this.#surface.overlay(boxes);
      this.#countBoxes(pts, boxes);
    }
    this.#schedule();
  }

  #schedule(): void {
    if (this.#frame !== null || this.#closed || this.#joiner.holding === 0) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = null;
      this.#draw();
      this.#schedule();
    });
  }

  #draw(): void {
    const joined = this.#joiner.take(performance.now());
    if (joined === null) return;
    const { picture } = joined;
    this.#surface.draw(picture);
    const { width, height, turn } = picture;
    this.#count(joined);
    picture.close();
    if (this.#options.boxes) this.#surface.overlay(joined.boxes);
    // A picture that is asked for is scaled to the tile: results have the camera's own size.
    if (!(this.#rung instanceof PolledRung)) {
      this.#sized(turn >= 4 ? { width: height, height: width } : { width, height });
    }
    this.drawn.value = Date.now();
  }

  #sized({ width, height }: { width: number; height: number }): void {
    const { size } = this.state.value;
    if (size?.width !== width || size.height !== height) this.#set({ size: { width, height } });
  }

  #count({ picture, boxes }: Joined): void {
    const own = this.#counters;
    own.drawn += 1;
    own.last = picture.pts;
    own.joinMs ??= performance.now() - this.#asked;
    const waited = performance.now() - picture.arrived;
    if (!picture.stale) sample(own.drawMs, waited);
    this.#countBoxes(picture.pts, boxes);
  }

  #countBoxes(picture: number, boxes: Boxes | null): void {
    if (boxes === null) return;
    sample(this.#counters.boxes, {
      picture,
      result: boxes.pts,
      exact: boxes.exact,
      followed: boxes.followed,
      boxes: boxes.items.map(({ detection, box }) => ({
        label: detection.label,
        track: detection.track ?? null,
        box: [...box],
      })),
    });
  }

  #dropped(): void {
    this.#counters.dropped += 1;
    // Units before the first key unit are no sign of anything.
    if (this.drawn.peek() !== null) this.#tellSlow();
  }

  #tellSlow(): void {
    this.slow.value = true;
    clearTimeout(this.#slowTimer);
    this.#slowTimer = setTimeout(() => (this.slow.value = false), DROPS_SHOWN_MS);
  }

  #set(changes: Partial<PlayerState>): void {
    this.state.value = { ...this.state.value, ...changes };
  }
}
