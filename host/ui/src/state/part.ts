// One answer of the host that a page shows and keeps up to date.
import { type Signal, signal } from "@preact/signals";
import { ApiError, request } from "../api/client";
import { stillThere } from "./me";

export type Answer<T> =
  | { state: "loading" }
  | { state: "ready"; value: T }
  /** The host does not have it, or not for this user: what shows it is left out. */
  | { state: "absent" }
  | { state: "failed"; error: unknown };

export class Part<T> {
  readonly answer: Signal<Answer<T>> = signal({ state: "loading" });
  #asking: Promise<void> | null = null;
  #users = 0;
  #timer: ReturnType<typeof setInterval> | undefined;

  constructor(
    readonly where: string,
    /** Milliseconds between two questions while it is shown. */
    readonly everyMs: number,
  ) {}

  /** Asks now; a question under way is not asked again. */
  load(): Promise<void> {
    const asking =
      this.#asking ??
      this.#ask().finally(() => {
        if (this.#asking === asking) this.#asking = null;
      });
    this.#asking = asking;
    return asking;
  }

  /** Its user has gone. */
  forget(): void {
    this.#asking = null;
    this.answer.value = { state: "loading" };
  }

  /** Asks now and again and again while somebody shows it; returns what ends that. */
  keep(): () => void {
    this.#users += 1;
    if (this.#users === 1) {
      void this.load();
      this.#timer = setInterval(() => {
        if (document.visibilityState === "visible") void this.load();
      }, this.everyMs);
    }
    return () => {
      this.#users -= 1;
      if (this.#users === 0) clearInterval(this.#timer);
    };
  }

  async #ask(): Promise<void> {
    const isMine = stillThere();
    try {
      const value = await request<T>(this.where);
      if (isMine()) this.answer.value = { state: "ready", value };
    } catch (error) {
      if (!isMine()) return;
      const status = error instanceof ApiError ? error.status : 0;
      if (status === 404 || status === 403) this.answer.value = { state: "absent" };
      // What was shown stays while the host is away: the page says so by itself.
      else if (this.answer.value.state !== "ready" || status !== 0) {
        this.answer.value = { state: "failed", error };
      }
    }
  }
}
