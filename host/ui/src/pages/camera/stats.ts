// What a session does now and did lately, asked for as long as its page is open.
import { type Signal, signal } from "@preact/signals";
import { path, request, said } from "../../api/client";
import type { SessionStats } from "../../api/types";
import { visible } from "../../state/visible";

/** Milliseconds between two looks, and looks that the charts show: ten minutes. */
const EVERY_MS = 2000;
const LOOKS = 300;

export interface Look {
  /** Seconds since 1970. */
  time: number;
  stats: SessionStats;
}

export class StatsHistory {
  readonly looks: Signal<readonly Look[]> = signal([]);
  readonly failure = signal<string | null>(null);
  #timer: ReturnType<typeof setTimeout> | undefined;
  #ending = new AbortController();

  constructor(readonly session: string) {
    void this.#look();
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#ending.abort();
  }

  async #look(): Promise<void> {
    const { signal: ending } = this.#ending;
    if (visible.peek()) {
      try {
        const where = path("sessions", this.session, "stats");
        const stats = await request<SessionStats>(where, { signal: ending });
        const look = { time: Date.parse(stats.time) / 1000, stats };
        this.looks.value = [...this.looks.value, look].slice(-LOOKS);
        this.failure.value = null;
      } catch (error) {
        this.failure.value = said(error);
      }
    }
    if (!ending.aborted) this.#timer = setTimeout(() => void this.#look(), EVERY_MS);
  }
}
