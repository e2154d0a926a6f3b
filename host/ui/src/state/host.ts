// How the host is, by its own words.
import { signal } from "@preact/signals";
import { ApiError, request } from "../api/client";
import type { HostMessage, Readiness } from "../api/types";
import { below } from "../base";
import { on } from "./live";
import { stillThere, whenUserGoes } from "./me";

/** null: it has not said, or all is well. */
export const hostStatus = signal<HostMessage | null>(null);
export const readiness = signal<Readiness | null>(null);

on("host", message => {
  hostStatus.value = message;
});

whenUserGoes(() => {
  hostStatus.value = null;
  readiness.value = null;
});

/** `GET /readyz`: 503 has the same body, and says what is not ready. */
export async function loadReadiness(): Promise<void> {
  const isMine = stillThere();
  let answer: Readiness;
  try {
    answer = await request<Readiness>(below("/readyz"));
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 503) throw error;
    answer = error.problem as unknown as Readiness;
  }
  if (isMine()) readiness.value = answer;
}
