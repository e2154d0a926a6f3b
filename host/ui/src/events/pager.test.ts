import { describe, expect, it } from "vitest";
import type { EventPage, StoredEvent } from "../api/types";
import { type Fetch, type PageQuery, Pager, merge } from "./pager";

const ALL = { kind: null, from: -Infinity, to: Infinity };

/** A journal that answers as the host does. Each tenth event is an alert. */
class Journal {
  readonly events: StoredEvent[] = [];
  oldest = 1;
  /** The number of the next event. */
  next = 1;
  requests: PageQuery[] = [];
  /** Events of a page, though the client asks for more: the host ends pages by their size, too. */
  most = 1000;

  constructor(
    readonly session: string,
    count: number,
    readonly first = Date.UTC(2026, 0),
    readonly step = 1000,
  ) {
    for (let n = 0; n < count; n++) this.add();
  }

  add(): StoredEvent {
    const seq = this.next++;
    const event: StoredEvent = {
      type: "event",
      session: this.session,
      seq,
      time: new Date(this.first + seq * this.step).toISOString(),
      clock: "camera",
      kind: seq % 10 === 0 ? "alert" : "entered",
      deployment: "c2247ebd57c7",
      detections: [],
      data: {},
    };
    this.events.push(event);
    return event;
  }

  readonly fetch: Fetch = (_, query) => {
    this.requests.push(query);
    const { after, limit, kind, to } = query;
    const wanted = this.events.filter(
      event =>
        event.seq > after &&
        event.seq >= this.oldest &&
        (kind === undefined || event.kind === kind) &&
        (to === undefined || event.time < to),
    );
    const events = wanted.slice(0, Math.min(limit, this.most));
    const page: EventPage = {
      session: this.session,
      events,
      oldest: this.oldest,
      newest: this.next - 1,
      next: events.length < wanted.length ? (events.at(-1)?.seq ?? null) : null,
    };
    if (after + 1 < this.oldest) page.gone = { from: after + 1, to: this.oldest - 1 };
    return Promise.resolve(page);
  };
}

async function readAll(pager: Pager): Promise<number[]> {
  for (let windows = 0; !pager.done; windows++) {
    expect(windows).toBeLessThan(100);
    await pager.older();
  }
  return pager.events.map(event => event.seq);
}

const down = (from: number, to: number) =>
  Array.from({ length: from - to + 1 }, (_, index) => from - index);

describe("a pager", () => {
  it("reads every event once, from the newest back", async () => {
    const journal = new Journal("gate", 250);
    const pager = new Pager("gate", ALL, journal.fetch);
    await pager.older();
    expect(pager.events.map(event => event.seq)).toEqual(down(250, 151));
    expect(await readAll(pager)).toEqual(down(250, 1));
  });

  it("crosses numbers that no event has, however many", async () => {
    const journal = new Journal("gate", 130);
    journal.next = 1_790_000_000_000;
    for (let n = 0; n < 5; n++) journal.add();
    const after = down(1_790_000_000_004, 1_790_000_000_000);
    const pager = new Pager("gate", ALL, journal.fetch);
    expect(await readAll(pager)).toEqual([...after, ...down(130, 1)]);
    // And where the numbers go on beyond the last event.
    journal.next = 1_800_000_000_000;
    const again = new Pager("gate", { ...ALL, kind: "alert" }, journal.fetch);
    expect(await readAll(again)).toEqual([
      1_790_000_000_000,
      ...down(130, 1).filter(n => n % 10 === 0),
    ]);
  });

  it("follows the cursor where pages end before their window", async () => {
    const journal = new Journal("gate", 130);
    journal.most = 7;
    expect(await readAll(new Pager("gate", ALL, journal.fetch))).toEqual(down(130, 1));
  });

  it("ends where the journal begins, and knows what is gone", async () => {
    const journal = new Journal("gate", 50);
    journal.oldest = 41;
    const pager = new Pager("gate", ALL, journal.fetch);
    expect(await readAll(pager)).toEqual(down(50, 41));
    expect(pager.goneTo).toBe(40);
  });

  it("reads nothing of a session without events", async () => {
    const pager = new Pager("gate", ALL, new Journal("gate", 0).fetch);
    expect(await readAll(pager)).toEqual([]);
    expect(pager.frontier).toBe(-Infinity);
  });

  it("takes larger windows where a filter lets little pass", async () => {
    const journal = new Journal("gate", 3000);
    const pager = new Pager("gate", { ...ALL, kind: "never" }, journal.fetch);
    expect(await readAll(pager)).toEqual([]);
    expect(journal.requests.length).toBeLessThan(15);
  });

  it("asks the host for one kind, each match once", async () => {
    const journal = new Journal("gate", 500);
    const pager = new Pager("gate", { ...ALL, kind: "alert" }, journal.fetch);
    expect(await readAll(pager)).toEqual(down(50, 1).map(tenth => tenth * 10));
  });

  it("stops where events are older than wanted", async () => {
    const journal = new Journal("gate", 5000, Date.UTC(2026, 0), 60_000);
    const from = Date.UTC(2026, 0) + 4900 * 60_000;
    const seqs = await readAll(new Pager("gate", { ...ALL, from }, journal.fetch));
    expect(seqs).toEqual(expect.arrayContaining(down(5000, 4900)));
    expect(seqs.length).toBeLessThan(400);
  });
});

describe("live events", () => {
  it("come once, and a gap is read", async () => {
    const journal = new Journal("gate", 10);
    const pager = new Pager("gate", ALL, journal.fetch);
    await pager.older();
    const eleven = journal.add();
    expect(await pager.live(eleven)).toEqual([eleven]);
    expect(await pager.live(eleven)).toEqual([]);
    const [twelve, thirteen] = [journal.add(), journal.add()];
    expect(await pager.live(thirteen)).toEqual([twelve, thirteen]);
    expect(await pager.live(thirteen)).toEqual([]);
  });

  it("are not lost while a gap is being read", async () => {
    const journal = new Journal("gate", 10);
    const pager = new Pager("gate", ALL, journal.fetch);
    await pager.older();
    journal.add();
    const twelve = journal.add();
    const first = pager.live(twelve);
    // The page that is being read does not have this one.
    const thirteen = journal.add();
    const second = pager.live(thirteen);
    const seqs = [...((await first) ?? []), ...((await second) ?? [])].map(event => event.seq);
    expect(seqs).toEqual([11, 12, 13]);
  });

  it("that come before the first page are part of it", async () => {
    const journal = new Journal("gate", 10);
    let answer = () => undefined as void;
    const held = new Promise<void>(resolve => (answer = resolve));
    const fetch: Fetch = async (session, query) => {
      const page = await journal.fetch(session, query);
      if (query.after === 0 && query.limit === 1) await held;
      return page;
    };
    const pager = new Pager("gate", ALL, fetch);
    const reading = pager.older();
    await pager.live(journal.add());
    answer();
    await reading;
    expect(pager.events.map(event => event.seq)).toEqual(down(11, 1));
  });

  it("are too many to be caught up with after a long absence", async () => {
    const journal = new Journal("gate", 10);
    const pager = new Pager("gate", ALL, journal.fetch);
    await pager.older();
    for (let n = 0; n < 5000; n++) journal.add();
    expect(await pager.catchUp()).toBeNull();
  });
});

describe("several sessions in one list", () => {
  it("show nothing before which an unread event could come", async () => {
    const often = new Journal("often", 1000, Date.UTC(2026, 0), 1000);
    const seldom = new Journal("seldom", 10, Date.UTC(2026, 0), 100_000);
    const pagers = [often, seldom].map(one => new Pager(one.session, ALL, one.fetch));
    expect(merge(pagers)).toEqual([]);
    for (const pager of pagers) await pager.older();
    const times = merge(pagers).map(event => event.time);
    expect(times).toEqual([...times].sort().reverse());
    // Of `often` the last 100 s are read, in which `seldom` had two events, ends included.
    const { frontier } = pagers[0]!;
    expect(Math.min(...times.map(time => Date.parse(time)))).toBe(frontier);
    for (const pager of pagers) await readAll(pager);
    expect(merge(pagers)).toHaveLength(1010);
    const unread = new Pager("new", ALL, often.fetch);
    expect(merge([...pagers, unread])).toHaveLength(1010);
  });

  it("keep the numbers' order for a single one, whatever its clock says", async () => {
    const journal = new Journal("file", 5, 0, -1000);
    const pager = new Pager("file", ALL, journal.fetch);
    await readAll(pager);
    expect(merge([pager]).map(event => event.seq)).toEqual([5, 4, 3, 2, 1]);
  });
});
