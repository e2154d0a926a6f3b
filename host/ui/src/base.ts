// Where the host is: behind a reverse proxy it may answer below a path of its name.

/**
 * The path without a slash at its end: "" or "/ocelli". The host writes it into the page. As Vite
 * serves the page it has no path, and the address in it is as it stands in the source.
 */
const base = ((): string => {
  if (typeof document === "undefined") return "";
  const written = document.querySelector<HTMLMetaElement>('meta[name="base"]')?.content ?? "/";
  return written.startsWith("/") ? written.slice(0, -1) : "";
})();

/** The address of a place of this page, or of the host's API. */
export function below(path: string): string {
  return base + path;
}

/** The place at an address, without the path of the host. A proxy may have removed that itself. */
export function within(path: string): string {
  const inside = path === base || path.startsWith(`${base}/`);
  return inside ? path.slice(base.length) : path;
}
