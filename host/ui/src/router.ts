// Which page is shown, by the address.
import { computed, signal } from "@preact/signals";
import { below, within } from "./base";

export type Route =
  | { page: "wall" }
  | { page: "camera"; id: string }
  | { page: "events" }
  | { page: "deployments"; id: string }
  | { page: "zones"; id: string }
  | { page: "system" }
  | { page: "add" }
  | { page: "login" }
  | { page: "missing" };

const address = signal(new URL(location.href));

/** The route of a path; exported for tests. */
export function parse(path: string): Route {
  const parts = path.split("/").filter(part => part !== "");
  const [first, second, ...rest] = parts;
  if (rest.length > 0) return { page: "missing" };
  if (first === undefined) return { page: "wall" };
  if (second === undefined) {
    switch (first) {
      case "cameras":
      case "deployments":
      case "zones":
        // Of which camera is chosen there.
        return { page: "wall" };
      case "events":
      case "system":
      case "add":
      case "login":
        return { page: first };
      default:
        return { page: "missing" };
    }
  }
  const id = decoded(second);
  if (id === null) return { page: "missing" };
  if (first === "cameras") return { page: "camera", id };
  if (first === "deployments" || first === "zones") return { page: first, id };
  return { page: "missing" };
}

function decoded(part: string): string | null {
  try {
    return decodeURIComponent(part);
  } catch {
    return null;
  }
}

export const route = computed(() => parse(within(address.value.pathname)));
/** The address's query, for filters that a link keeps. */
export const query = computed(() => address.value.searchParams);

/** The path of a session's page. */
export function pathOf(page: "cameras" | "deployments" | "zones", id: string): string {
  return `/${page}/${encodeURIComponent(id)}`;
}

/** Shows another page, by its place or its address. `replace` leaves no entry in the history. */
export function navigate(to: string, replace = false): void {
  const url = new URL(to.startsWith("/") ? below(to) : to, location.href);
  if (url.href === address.value.href) return;
  const moved = url.pathname !== address.value.pathname;
  history[replace ? "replaceState" : "pushState"](null, "", url);
  address.value = url;
  if (moved) scrollTo(0, 0);
}

/** Changes members of the query; null and "" remove one. */
export function setQuery(changes: Readonly<Record<string, string | null>>): void {
  const url = new URL(address.value);
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === "") url.searchParams.delete(name);
    else url.searchParams.set(name, value);
  }
  navigate(url.href, true);
}

addEventListener("popstate", () => {
  address.value = new URL(location.href);
});
