// A camera that is being added: probed, searched for, saved.
import { type Signal, computed, signal } from "@preact/signals";
import { type ApiError, apiError, path, request } from "../api/client";
import type { PipelineDescription } from "../api/types";
import { Draft } from "../settings/draft";
import { type JsonObject, isObject } from "../settings/json";
import { type Schema, faults } from "../settings/schema";
import { type Written, addCamera } from "./config";
import { refreshSessions } from "./sessions";
import { labelled } from "./system";

/** Milliseconds: the host waits up to 40 s for a first picture, and reads for some more. */
const PROBE_MS = 90_000;
const DISCOVER_MS = 60_000;
/** A large component takes its compiler a minute. */
const DESCRIBE_MS = 180_000;

/** `POST /v1/probe`: what a source is, or why it does not play. */
export interface Probe {
  source: string;
  plays: boolean;
  codec: string | null;
  size: [number, number] | null;
  rate: number | null;
  kbit_s: number | null;
  gop: number | null;
  transport?: string | null;
  reader?: { kind: string; reason: string } | null;
  left_out: string[];
  suggested_rate: number | null;
  picture: string | null;
  fault: { kind: string; step: string | null; message: string; advice: string } | null;
}

/** `POST /v1/discover`: a camera that has answered. */
export interface FoundCamera {
  address: string;
  name: string | null;
  hardware: string | null;
  streams: { profile: string; source: string; encoding: string; size: [number, number] | null }[];
  /** Its main stream, and a much smaller one to be analysed; null: it has no such two. */
  proposal: { source: string; substream: string } | null;
  fault: string | null;
}

type Asked<T> =
  | { state: "idle" }
  | { state: "asked" }
  | { state: "ready"; answer: T }
  | { state: "failed"; error: ApiError };

export class Adding {
  readonly probed: Signal<Asked<Probe>> = signal({ state: "idle" });
  readonly found: Signal<Asked<FoundCamera[]>> = signal({ state: "idle" });
  readonly pipeline = signal("");
  /** What the chosen pipeline says of its settings. */
  readonly described: Signal<Asked<Schema | null>> = signal({ state: "idle" });
  /** Its schema, with the labels of the model; null: it has not said any. */
  readonly schema = computed(() => {
    const described = this.described.value;
    if (described.state !== "ready" || described.answer === null) return null;
    return labelled(described.answer, this.draft.value.value);
  });
  readonly draft = new Draft();
  readonly saving = signal(false);
  readonly written: Signal<{ id: string; as: Written } | null> = signal(null);

  readonly faults = computed(() => {
    const schema = this.schema.value;
    return schema === null ? [] : faults(schema, schema, this.draft.value.value);
  });

  async probe(source: string, transport: string): Promise<void> {
    const body = { source, ...(transport === "" ? {} : { transport }) };
    await ask(this.probed, () =>
      request<Probe>(path("probe"), { method: "POST", body, limitMs: PROBE_MS }),
    );
  }

  async discover(user: string, password: string): Promise<void> {
    const body = user === "" ? {} : { user, password };
    await ask(this.found, async () => {
      const options = { method: "POST", body, limitMs: DISCOVER_MS } as const;
      return (await request<{ cameras: FoundCamera[] }>(path("discover"), options)).cameras;
    });
  }

  /** Chooses a pipeline, and asks what its settings are. */
  async choose(name: string): Promise<void> {
    this.pipeline.value = name;
    this.described.value = { state: "idle" };
    this.draft.load({});
    if (name === "") return;
    await ask(this.described, async () => {
      const where = path("pipelines", name, "schema");
      const answer = await request<PipelineDescription>(where, { limitMs: DESCRIBE_MS });
      const schema: unknown = answer.schema;
      return isObject(schema) ? schema : null;
    });
  }

  /** `substream` may be empty: one stream does both. */
  async save(id: string, source: string, substream: string, transport: string): Promise<void> {
    const settings = this.draft.value.value;
    const camera: JsonObject = {
      source,
      ...(substream === "" ? {} : { substream }),
      pipeline: this.pipeline.value,
      ...(transport === "" ? {} : { transport }),
      ...(Object.keys(settings).length === 0 ? {} : { settings }),
    };
    this.saving.value = true;
    this.written.value = null;
    try {
      const as = await addCamera(id, camera);
      if (as !== null) this.written.value = { id, as };
      if (as?.state === "written") await refreshSessions();
    } catch (error) {
      this.written.value = { id, as: { state: "refused", error: apiError(error) } };
    } finally {
      this.saving.value = false;
    }
  }
}

async function ask<T>(into: Signal<Asked<T>>, asking: () => Promise<T>): Promise<void> {
  const mine: Asked<T> = { state: "asked" };
  into.value = mine;
  let next: Asked<T>;
  try {
    next = { state: "ready", answer: await asking() };
  } catch (cause) {
    next = { state: "failed", error: apiError(cause) };
  }
  // A later question has taken its place.
  if (into.peek() === mine) into.value = next;
}
