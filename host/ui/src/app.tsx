import { type Signal, signal } from "@preact/signals";
import type { ComponentType } from "preact";
import { useEffect } from "preact/hooks";
import { said } from "./api/client";
import { type Route, route } from "./router";
import { loadMe, me } from "./state/me";
import WallPage from "./pages/wall";
import { Empty } from "./ui/empty";
import { Failure } from "./ui/failure";
import { Layout } from "./ui/layout";
import { Link } from "./ui/link";

type Loaded<P> = { state: "loading" } | { state: "ready"; page: ComponentType<P> };

/** A page that is loaded when it is first shown. The wall is part of the first load. */
function lazy<P extends object>(load: () => Promise<{ default: ComponentType<P> }>) {
  const loaded: Signal<Loaded<P> | { state: "failed"; reason: unknown }> = signal({
    state: "loading",
  });
  let begun = false;
  const begin = () => {
    begun = true;
    load().then(
      ({ default: page }) => (loaded.value = { state: "ready", page }),
      (reason: unknown) => {
        begun = false;
        loaded.value = { state: "failed", reason };
      },
    );
  };
  return function Lazy(props: P) {
    if (!begun && loaded.value.state === "loading") begin();
    const now = loaded.value;
    if (now.state === "ready") return <now.page {...props} />;
    if (now.state === "loading") return <p class="quiet">Loading …</p>;
    // After an update of the host, the names of its files are new.
    return (
      <Failure
        what="This page cannot be loaded; the host may have been updated"
        error={now.reason}
        retry={() => location.reload()}
      />
    );
  };
}

const Camera = lazy(() => import("./pages/camera"));
const Events = lazy(() => import("./pages/events"));
const Deployments = lazy(() => import("./pages/deployments"));
const Zones = lazy(() => import("./pages/zones"));
const System = lazy(() => import("./pages/system"));
const Add = lazy(() => import("./pages/add"));
const Login = lazy(() => import("./pages/login"));

const unreachable = signal<string | null>(null);

/** Milliseconds between two tries of a page that has not reached the host yet. */
const KNOCK_MS = 3000;
let knocking: ReturnType<typeof setTimeout> | undefined;

function knock(): void {
  clearTimeout(knocking);
  loadMe().then(
    () => (unreachable.value = null),
    (error: unknown) => {
      unreachable.value = said(error);
      knocking = setTimeout(knock, KNOCK_MS);
    },
  );
}

export function App() {
  useEffect(knock, []);
  const at = route.value;
  useEffect(() => {
    document.title = me.value === null ? "Log in – Ocelli" : title(at);
  }, [at, me.value]);
  if (unreachable.value !== null) {
    return (
      <main id="main">
        <Failure what="The host does not answer" error={unreachable.value} retry={knock} />
      </main>
    );
  }
  if (me.value === undefined) return <p class="quiet">Loading …</p>;
  if (me.value === null || at.page === "login") {
    return (
      <main id="main">
        <Login />
      </main>
    );
  }
  return (
    <Layout>
      <Page at={at} />
    </Layout>
  );
}

function title(at: Route): string {
  if ("id" in at) return `${at.id} – Ocelli`;
  const names = { wall: "Cameras", missing: "No such page", add: "Add a camera" } as const;
  const name = at.page in names ? names[at.page as keyof typeof names] : at.page;
  return `${name.charAt(0).toUpperCase()}${name.slice(1)} – Ocelli`;
}

function Page({ at }: { at: Route }) {
  switch (at.page) {
    case "wall":
      return <WallPage />;
    case "camera":
      return <Camera key={at.id} id={at.id} />;
    case "events":
      return <Events />;
    case "deployments":
      return <Deployments key={at.id} id={at.id} />;
    case "zones":
      return <Zones key={at.id} id={at.id} />;
    case "system":
      return <System />;
    case "add":
      return <Add />;
    default:
      return (
        <Empty title="There is no such page">
          <p>
            The address has a mistake, or belongs to another version. All cameras are{" "}
            <Link href="/">here</Link>.
          </p>
        </Empty>
      );
  }
}
