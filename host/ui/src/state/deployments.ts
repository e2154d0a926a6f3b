// A session's deployments: the history, and what this page has asked for.
import { type Signal, signal } from "@preact/signals";
import { type ApiError, apiError, path, request, said } from "../api/client";
import type { Deployment, Pipeline } from "../api/types";
import { isUnderWay } from "../deployment/steps";
import type { JsonObject } from "../settings/json";
import { on } from "./live";
import { stillThere, whenUserGoes } from "./me";
import { refreshSessions } from "./sessions";

/** Deployments that are shown. */
const SHOWN = 20;
/** Milliseconds between two looks while steps are taken, and during a probation. */
const STEP_MS = 400;
const PROBATION_MS = 2000;

/** What is asked for. */
export interface DeployRequest {
  /** The file and its name, or the name of a stored pipeline. */
  component: { file: Blob; name: string } | { pipeline: string };
  /** undefined: those that the session has, or the pipeline's own. */
  settings?: JsonObject | undefined;
  /** Frames to compare on before. */
  shadow: number;
  shadowOnly: boolean;
  threshold: number | null;
  /** null: as the host's config says. */
  state: "keep" | "fresh" | null;
}

type Attempt =
  | { state: "asked"; after: number; request: DeployRequest | null }
  | { state: "done"; record: Deployment; request: DeployRequest | null }
  | { state: "failed"; error: ApiError; record: Deployment | null; request: DeployRequest | null };

export type History =
  | { state: "loading" }
  | { state: "ready"; records: readonly Deployment[] }
  | { state: "failed"; reason: string };

/** The store of one session's deployments. `end` it when nobody looks any more. */
export class Deployments {
  readonly history: Signal<History> = signal({ state: "loading" });
  /** The last that this page has asked for. */
  readonly attempt: Signal<Attempt | null> = signal(null);
  #timer: ReturnType<typeof setTimeout> | undefined;
  readonly #unhear: () => void;
  #ended = false;

  constructor(readonly session: string) {
    this.#unhear = on("event", event => {
      if (event.session === session && event.kind === "deployment") void this.refresh();
    });
    void this.refresh();
  }

  end(): void {
    this.#ended = true;
    this.#unhear();
    clearTimeout(this.#timer);
  }

  /** Asks for the history now, and again while something is under way. */
  async refresh(): Promise<void> {
    clearTimeout(this.#timer);
    try {
      const where = path("sessions", this.session, "deployments");
      const answer = await request<{ deployments: Deployment[] }>(where, {
        query: { limit: SHOWN },
      });
      this.history.value = { state: "ready", records: answer.deployments };
    } catch (error) {
      // What is shown stays, unless there is nothing.
      if (this.history.value.state !== "ready") {
        this.history.value = { state: "failed", reason: said(error) };
      }
    }
    clearTimeout(this.#timer);
    const wait = this.#wait();
    if (wait !== null && !this.#ended) this.#timer = setTimeout(() => void this.refresh(), wait);
  }

  #wait(): number | null {
    if (this.attempt.value?.state === "asked") return STEP_MS;
    const [newest] = this.records;
    if (newest === undefined || !isUnderWay(newest)) return null;
    return newest.state === "pending" ? STEP_MS : PROBATION_MS;
  }

  get records(): readonly Deployment[] {
    const history = this.history.value;
    return history.state === "ready" ? history.records : [];
  }

  /** The record of what this page has asked for, as far as the host has one. */
  get own(): Deployment | null {
    const attempt = this.attempt.value;
    if (attempt === null) return null;
    if (attempt.state === "asked") {
      return this.records.find(record => record.number > attempt.after) ?? null;
    }
    const { record } = attempt;
    // The history knows more: it goes on after the answer.
    return this.records.find(one => one.number === record?.number) ?? record;
  }

  deploy(asked: DeployRequest): Promise<Deployment | null> {
    const { component, settings, shadow, shadowOnly, threshold, state } = asked;
    const isFile = "file" in component;
    const query = {
      pipeline: isFile ? undefined : component.pipeline,
      name: isFile ? component.name : undefined,
      settings: settings === undefined ? undefined : JSON.stringify(settings),
      shadow: shadow > 0 ? shadow : undefined,
      shadow_only: shadowOnly ? true : undefined,
      threshold: threshold ?? undefined,
      state: state ?? undefined,
    };
    return this.#run(asked, () =>
      request<Deployment>(path("sessions", this.session, "pipeline"), {
        method: "PUT",
        query,
        body: isFile ? component.file : undefined,
        limitMs: 0,
      }),
    );
  }

  rollBack(): Promise<Deployment | null> {
    return this.#run(null, () =>
      request<Deployment>(path("sessions", this.session, "rollback"), {
        method: "POST",
        limitMs: 0,
      }),
    );
  }

  /** The record; null if it failed, and `attempt` says why. */
  async #run(
    asked: DeployRequest | null,
    ask: () => Promise<Deployment>,
  ): Promise<Deployment | null> {
    const after = this.records[0]?.number ?? 0;
    this.attempt.value = { state: "asked", after, request: asked };
    const answered = ask();
    void this.refresh();
    try {
      const record = await answered;
      this.attempt.value = { state: "done", record, request: asked };
      return record;
    } catch (cause) {
      const error = apiError(cause);
      const record = (error.problem["deployment"] ?? null) as Deployment | null;
      this.attempt.value = { state: "failed", error, record, request: asked };
      return null;
    } finally {
      void this.refresh();
      void refreshSessions();
    }
  }

  /** Forgets what this page has asked for. */
  discard(): void {
    this.attempt.value = null;
  }
}

export type Pipelines =
  | { state: "loading" }
  | { state: "ready"; all: readonly Pipeline[] }
  | { state: "failed"; reason: string };

/** The pipelines that the host has by name. */
export const pipelines = signal<Pipelines>({ state: "loading" });

whenUserGoes(() => {
  pipelines.value = { state: "loading" };
});

export async function loadPipelines(): Promise<void> {
  const isMine = stillThere();
  try {
    const { pipelines: all } = await request<{ pipelines: Pipeline[] }>(path("pipelines"));
    if (isMine()) pipelines.value = { state: "ready", all };
  } catch (error) {
    if (isMine()) pipelines.value = { state: "failed", reason: said(error) };
  }
}
