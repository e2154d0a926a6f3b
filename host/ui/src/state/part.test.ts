import { beforeEach, expect, it, vi } from "vitest";
import { Part } from "./part";

const answers: (Response | Error)[] = [];
const asked = vi.fn(async () => {
  const next = answers.shift();
  if (next === undefined || next instanceof Error) throw next ?? new Error("nothing to answer");
  return next;
});
vi.stubGlobal("fetch", asked);

const problem = (status: number, code: string) =>
  new Response(JSON.stringify({ title: "No", status, code, detail: "no" }), {
    status,
    headers: { "content-type": "application/problem+json" },
  });

beforeEach(() => {
  answers.length = 0;
  asked.mockClear();
});

it("is left out where the host does not know it, or refuses it to this user", async () => {
  for (const answer of [problem(404, "unknown_path"), problem(403, "forbidden")]) {
    answers.push(answer);
    const part = new Part("/v1/system", 1000);
    expect(part.answer.value.state).toBe("loading");
    await part.load();
    expect(part.answer.value).toEqual({ state: "absent" });
  }
});

it("keeps what it has while the host is away, and tells of the host's own faults", async () => {
  const part = new Part<{ n: number }>("/v1/system", 1000);
  answers.push(Response.json({ n: 1 }), new Error("no network"), problem(500, "internal"));
  await part.load();
  await part.load();
  expect(part.answer.value).toEqual({ state: "ready", value: { n: 1 } });
  await part.load();
  expect(part.answer.value.state).toBe("failed");
  answers.push(Response.json({ n: 2 }));
  await part.load();
  expect(part.answer.value).toEqual({ state: "ready", value: { n: 2 } });
});

it("asks once at a time", async () => {
  answers.push(Response.json({}));
  const part = new Part("/v1/system", 1000);
  await Promise.all([part.load(), part.load()]);
  expect(asked).toHaveBeenCalledTimes(1);
});

it("is asked for once, however many show it, and no more when none does", async () => {
  vi.useFakeTimers();
  vi.stubGlobal("document", { visibilityState: "visible" });
  answers.push(Response.json({}), Response.json({}));
  const part = new Part("/v1/system", 1000);
  const [one, other] = [part.keep(), part.keep()];
  await vi.advanceTimersByTimeAsync(1000);
  expect(asked).toHaveBeenCalledTimes(2);
  one();
  other();
  await vi.advanceTimersByTimeAsync(5000);
  expect(asked).toHaveBeenCalledTimes(2);
  vi.useRealTimers();
});
