import type { ComponentChildren } from "preact";
import type { HostMessage, HostPart } from "../api/types";
import { route } from "../router";
import { hostStatus } from "../state/host";
import { connection, retryNow } from "../state/live";
import { logOut, mayOperate, me } from "../state/me";
import { Questions } from "./dialog";
import { Link } from "./link";
import { now } from "./time";
import { Toasts, toast } from "./toast";
import { said } from "../api/client";

/** Navigation, what the host has to say, and the page. */
export function Layout({ children }: { children: ComponentChildren }) {
  return (
    <>
      <a class="skip" href="#main">
        Skip to content
      </a>
      <div class="shell">
        <Navigation />
        <div class="content">
          <Banners />
          <main id="main" tabIndex={-1}>
            {children}
          </main>
        </div>
      </div>
      <Questions />
      <Toasts />
    </>
  );
}

function Navigation() {
  const { page } = route.value;
  const current = (...pages: string[]) => (pages.includes(page) ? "page" : undefined);
  const who = me.value;
  const leave = () => logOut().catch(error => toast(said(error), { bad: true }));
  return (
    <nav class="navigation" aria-label="Pages">
      <span class="brand">Ocelli</span>
      <Link href="/" aria-current={current("wall", "camera", "deployments", "zones")}>
        Cameras
      </Link>
      <Link href="/events" aria-current={current("events")}>
        Events
      </Link>
      {mayOperate.value && (
        <>
          <Link href="/system" aria-current={current("system")}>
            System
          </Link>
          <Link href="/add" aria-current={current("add")}>
            Add camera
          </Link>
        </>
      )}
      {who?.login && (
        <span class="who">
          <span class="quiet">
            {who.name} ({who.role})
          </span>
          <button type="button" class="plain" onClick={leave}>
            Log out
          </button>
        </span>
      )}
    </nav>
  );
}

/** The parts of the host, each of its sinks among them. */
function partsOf(host: HostMessage): { name: string; part: HostPart }[] {
  const own = (["storage", "clock", "config", "inference"] as const).map(name => ({
    name,
    part: host[name],
  }));
  const sinks = Object.entries(host.sinks ?? {}).map(([name, part]) => ({ name, part }));
  return [...own, ...sinks];
}

function Banners() {
  const link = connection.value;
  const host = hostStatus.value;
  const parts = host ? partsOf(host).filter(({ part }) => part.state !== "ok") : [];
  return (
    <div role="region" aria-label="Notices of the host">
      {me.value?.login === false && (
        <p class="banner quiet">
          This host has no tokens: everyone on this machine can change everything.
        </p>
      )}
      {link.state === "waiting" && (
        <p class="banner bad" role="alert">
          No connection: {link.reason}. It is tried again{" "}
          <span aria-hidden="true">
            in {Math.max(0, Math.ceil((link.retryAt - now.value) / 1000))} s
          </span>
          .{" "}
          <button type="button" onClick={retryNow}>
            Try now
          </button>
        </p>
      )}
      {parts.map(({ name, part }) => (
        <p key={name} class={part.state === "failed" ? "banner bad" : "banner warn"} role="status">
          <strong>
            {name} {part.state}:
          </strong>{" "}
          {part.reason}
        </p>
      ))}
    </div>
  );
}
