// How the host is, by its own words.
import { signal } from "@preact/signals";
import { ApiError, request } from "../api/client";
import type { HostMessage, Readiness } from "../api/types";
import { on } from "./live";

/** null: it has not said, or all is well. */
export const hostStatus = signal<HostMessage | null>(null);
export const readiness = signal<Readiness | null>(null);

on("host", message => {
  hostStatus.value = message;
});

/** `GET /readyz`: 503 has the same body, and says what is not ready. */
export async function loadReadiness(): Promise<void> {
  try {
    readiness.value = await request<Readiness>("/readyz");
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 503) throw error;
    readiness.value = error.problem as unknown as Readiness;
  }
}
