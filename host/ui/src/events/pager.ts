// Reads a session's events from the newest back, though the journal's cursor only goes forward: a
// window of numbers at a time, from its lower end to its upper one.
import type { EventPage, StoredEvent } from "../api/types";

/** As `GET /v1/sessions/{id}/events` has them. */
export interface PageQuery {
  after: number;
  limit: number;
  kind?: string;
  to?: string;
}

export type Fetch = (session: string, query: PageQuery) => Promise<EventPage>;

/** What the host can filter by itself; the rest is for the page. */
interface Wanted {
  kind: string | null;
  /** Milliseconds; events from here on are not wanted. */
  to: number;
  /** Milliseconds; the session is done where events are older. */
  from: number;
}

/** Numbers of the first window; a window without a match doubles the next. */
const FIRST_WINDOW = 100;
/** The host examines this many events for one page. */
const LARGEST_WINDOW = 20_000;
/** The host's bound of a page. */
const PAGE = 1000;
/** Clocks of cameras and of the host may differ by this much. */
const SLACK_MS = 600_000;
/** Pages that are read to catch up with a session before its list is read anew. */
const CATCH_UP_PAGES = 3;

export class Pager {
  /** Those read so far that the host let pass, newest first. */
  events: StoredEvent[] = [];
  /** No unread event is newer than this: its time in milliseconds. */
  frontier = Infinity;
  /** Numbers that the journal no longer has end here; 0: none are gone. */
  goneTo = 0;
  #newest = -1;
  #oldest = 1;
  /** The highest number that has not been looked at. */
  #top = 0;
  /** The highest number that came live. */
  #heard = 0;
  #window = FIRST_WINDOW;
  #catching: Promise<StoredEvent[] | null> | null = null;

  constructor(
    readonly session: string,
    readonly wanted: Wanted,
    readonly fetch: Fetch,
  ) {}

  get begun(): boolean {
    return this.#newest >= 0;
  }

  get done(): boolean {
    return this.begun && this.#top < this.#oldest;
  }

  /** Reads the next window. The caller asks for one at a time. */
  async older(): Promise<void> {
    if (!this.begun) await this.#begin();
    if (this.done) return this.#finish();
    const top = this.#top;
    const bottom = Math.max(this.#oldest, top - this.#window + 1);
    const found: StoredEvent[] = [];
    let after = bottom - 1;
    while (after < top) {
      const page = await this.fetch(this.session, {
        after,
        limit: Math.min(PAGE, top - after),
        ...this.#filter(),
      });
      found.push(...page.events.filter(event => event.seq <= top));
      if (page.gone) this.goneTo = Math.max(this.goneTo, page.gone.to);
      if (page.next === null) break;
      after = page.next;
    }
    const first = found[0]?.seq === bottom ? found[0] : await this.#firstFrom(bottom);
    const empty = first === null || first.seq > top;
    this.#top = empty ? await this.#lastBefore(bottom) : bottom - 1;
    if (first !== null) this.frontier = Date.parse(first.time);
    if (this.frontier < this.wanted.from - SLACK_MS) this.#top = 0;
    this.#window = Math.min(LARGEST_WINDOW, found.length > 0 ? FIRST_WINDOW : this.#window * 2);
    this.events = [...this.events, ...found.reverse()];
    if (this.done) this.#finish();
  }

  /**
   * Takes a live event. Answers the new ones, which may be others that came unseen before it, or
   * null if there are so many that the list must be read anew.
   */
  async live(event: StoredEvent): Promise<StoredEvent[] | null> {
    this.#heard = Math.max(this.#heard, event.seq);
    while (this.begun && event.seq > this.#newest) {
      if (this.#catching) {
        // Whoever began that has what it finds.
        if ((await this.#catching) === null) return [];
      } else if (event.seq === this.#newest + 1) {
        this.#newest = event.seq;
        return [event];
      } else {
        return this.catchUp();
      }
    }
    return [];
  }

  /** The events since the newest known one, as `live` answers them. */
  catchUp(): Promise<StoredEvent[] | null> {
    if (!this.begun) return Promise.resolve([]);
    if (this.#catching) return this.#catching.then(all => (all === null ? null : []));
    this.#catching = this.#since().finally(() => (this.#catching = null));
    return this.#catching;
  }

  async #since(): Promise<StoredEvent[] | null> {
    const found: StoredEvent[] = [];
    for (let pages = 0; pages < CATCH_UP_PAGES; pages++) {
      const page = await this.fetch(this.session, { after: this.#newest, limit: PAGE });
      if (page.gone) this.goneTo = Math.max(this.goneTo, page.gone.to);
      found.push(...page.events);
      this.#newest = page.events.at(-1)?.seq ?? this.#newest;
      if (page.next === null) return found;
    }
    return null;
  }

  async #begin(): Promise<void> {
    const page = await this.fetch(this.session, { after: 0, limit: 1 });
    this.#newest = Math.max(page.newest, this.#heard);
    this.#top = this.#newest;
    this.#oldest = Math.max(1, page.oldest);
    this.goneTo = this.#oldest - 1;
  }

  #finish(): void {
    this.frontier = -Infinity;
  }

  #filter(): Pick<PageQuery, "kind" | "to"> {
    const { kind, to } = this.wanted;
    return {
      ...(kind === null ? {} : { kind }),
      ...(Number.isFinite(to) ? { to: new Date(to).toISOString() } : {}),
    };
  }

  /** The first event from a number on; null if there is none. */
  async #firstFrom(seq: number): Promise<StoredEvent | null> {
    const page = await this.fetch(this.session, { after: seq - 1, limit: 1 });
    return page.events[0] ?? null;
  }

  /** The last number that an event has before this one: after a restored backup many have none. */
  async #lastBefore(end: number): Promise<number> {
    let [low, high] = [this.#oldest, end];
    while (high - low > 1) {
      const middle = Math.floor((low + high) / 2);
      const first = await this.#firstFrom(middle);
      if (first !== null && first.seq < end) low = first.seq;
      else high = middle;
    }
    return low;
  }
}

/**
 * One list of several sessions, newest first: what no unread event can come before. Of one session
 * the numbers give the order, since the times of a file begin in 1970.
 */
export function merge(pagers: readonly Pager[]): StoredEvent[] {
  // A session that has just been made holds up none of the others.
  const begun = pagers.filter(pager => pager.begun);
  const [first] = begun;
  if (first && pagers.length === 1) return first.events;
  const frontier = Math.max(...begun.map(pager => pager.frontier));
  return begun
    .flatMap(pager => pager.events)
    .filter(event => Date.parse(event.time) >= frontier)
    .sort(newestFirst);
}

/** The order of a list of several sessions. */
export function newestFirst(one: StoredEvent, other: StoredEvent): number {
  return (
    Date.parse(other.time) - Date.parse(one.time) ||
    one.session.localeCompare(other.session) ||
    other.seq - one.seq
  );
}
