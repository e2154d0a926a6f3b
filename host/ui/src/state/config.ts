// The cameras of the host's config: read, written where the host lets this user, or shown to paste.
import { ApiError, path, request } from "../api/client";
import type { JsonObject } from "../settings/json";
import { mayAdmin } from "./me";

/** What has become of a change of the config. */
export type Written =
  | { state: "written" }
  /** The host does not edit its config: this is to be pasted into it. */
  | { state: "paste"; toml: string; reason: string }
  | { state: "refused"; error: ApiError };

/** Changes a camera's entry, or adds one. Keys that are left out stay as they are. */
export async function writeCamera(id: string, entry: JsonObject): Promise<Written> {
  if (!mayAdmin.value) {
    const message = "Only an admin may write the config: it still has what it had.";
    return { state: "refused", error: new ApiError(403, "forbidden", message) };
  }
  try {
    const where = path("config", "cameras", id);
    await request<unknown>(where, { method: "PUT", body: entry, limitMs: 60_000 });
    return { state: "written" };
  } catch (cause) {
    if (!(cause instanceof ApiError)) throw cause;
    const { toml } = cause.problem;
    if (cause.status === 409 && typeof toml === "string") {
      return { state: "paste", toml, reason: cause.message };
    }
    return { state: "refused", error: cause };
  }
}

/** Whether the config has a camera of this name; null: the host does not say. */
export async function isConfigured(id: string): Promise<boolean | null> {
  try {
    const { cameras } = await request<{ cameras: { id: string }[] }>(path("config"));
    return cameras.some(camera => camera.id === id);
  } catch {
    return null;
  }
}
