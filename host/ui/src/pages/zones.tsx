import { useSignal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import { Attempted } from "../deployment/attempt";
import { pathOf } from "../router";
import { place } from "../settings/json";
import { SettingsForm } from "../settings/form";
import type { Schema } from "../settings/schema";
import { mayAdmin, mayOperate } from "../state/me";
import { listing, sessions } from "../state/sessions";
import { labelled, models } from "../state/system";
import { SettingsStore } from "../state/settings";
import { Empty, NoCamera } from "../ui/empty";
import { Failure } from "../ui/failure";
import { Link } from "../ui/link";
import { Status } from "../ui/status";
import { ConfigWritten } from "../ui/written";
import { Editor } from "./zones/editor";
import { type Shape, drawables } from "./zones/shapes";
import { area, crossesItself } from "./zones/polygon";
import "./zones.css";

/** Frames of a trial unless the user says otherwise. */
const FRAMES = 50;
const MOST_FRAMES = 15_000;

/** Areas of the picture, and the settings of a pipeline. */
export default function ZonesPage({ id }: { id: string }) {
  const store = useMemo(() => new SettingsStore(id), [id]);
  useEffect(() => () => store.end(), [store]);
  useEffect(() => void models.load(), []);
  useEffect(() => {
    const warn = (event: BeforeUnloadEvent) => {
      if (store.draft.changed.value.length > 0) event.preventDefault();
    };
    addEventListener("beforeunload", warn);
    return () => removeEventListener("beforeunload", warn);
  }, [store]);
  const session = sessions.value.get(id);
  const loaded = store.loaded.value;
  if (session === undefined && listing.value.state === "ready") {
    return <NoCamera id={id} />;
  }
  return (
    <>
      <div class="bar">
        <h1>Zones and settings of {id}</h1>
        {session && <Status state={session.state} />}
        <Link href={pathOf("cameras", id)}>Camera</Link>
        <Link href={pathOf("deployments", id)}>Deployments</Link>
      </div>
      {loaded.state === "loading" && <p class="quiet">Loading …</p>}
      {loaded.state === "failed" && (
        <Failure
          what="The settings cannot be shown"
          error={loaded.reason}
          retry={() => void store.load()}
        />
      )}
      {loaded.state === "ready" && loaded.schema === null && (
        <Empty title="No settings yet">
          <p>
            The pipeline has not described its settings: its worker has not started. When it has,
            they are here. <Link href={pathOf("cameras", id)}>See why it does not run.</Link>
          </p>
          <button type="button" onClick={() => void store.load()}>
            Look again
          </button>
        </Empty>
      )}
      {loaded.state === "ready" && loaded.schema !== null && (
        <Content store={store} described={loaded.schema} />
      )}
    </>
  );
}

function Content({ store, described }: { store: SettingsStore; described: Schema }) {
  const { draft } = store;
  const chosen = useSignal<string | null>(null);
  const pictureAt = useSignal(Date.now());
  const settings = draft.value.value;
  const known = models.answer.value;
  const schema = useMemo(() => labelled(described, settings), [described, settings, known]);
  const found = useMemo(() => drawables(schema, settings), [schema, settings]);
  const busy = store.deployments.attempt.value?.state === "asked" || store.saving.value !== "no";
  const disabled = !mayOperate.value || busy;
  const drawn = found.shapes.length > 0 || found.slots.length > 0;
  const shape = found.shapes.find(({ key }) => key === chosen.value);
  // Lists of shapes are edited beside the picture, the rest below it.
  const skip = [...found.shapes.map(({ key }) => key), ...lists(found.slots)];
  const form = { draft, root: schema, faults: store.faults.value, disabled };
  return (
    <>
      {drawn && (
        <div class="zones">
          <section aria-label="Picture">
            <Editor
              session={store.session}
              at={pictureAt.value}
              draft={draft}
              schema={schema}
              found={found}
              chosen={chosen}
              disabled={disabled}
            />
            <button type="button" class="plain" onClick={() => (pictureAt.value = Date.now())}>
              New picture
            </button>
          </section>
          <section class="panel" aria-label="Shapes">
            <ShapeList shapes={found.shapes} chosen={chosen} />
            {shape && (
              <ShapeDetails
                shape={shape}
                store={store}
                form={form}
                onGone={() => (chosen.value = null)}
              />
            )}
          </section>
        </div>
      )}
      <section class="panel" aria-label="Settings">
        <h2>Settings</h2>
        <SettingsForm {...form} schema={schema} path={[]} skip={skip} />
      </section>
      {mayOperate.value && <Actions store={store} busy={busy} />}
      <Outcome store={store} />
    </>
  );
}

function lists(slots: ReturnType<typeof drawables>["slots"]): string[] {
  return slots.map(({ path }) => place(path));
}

function ShapeList({
  shapes,
  chosen,
}: {
  shapes: readonly Shape[];
  chosen: { value: string | null };
}) {
  if (shapes.length === 0) {
    return (
      <p class="quiet">
        No shapes yet. A zone reports what enters and leaves it, and how long it stayed: draw one on
        the picture, or add one in the middle and move its corners.
      </p>
    );
  }
  return (
    <>
      <h2>Shapes</h2>
      <ul class="shapes">
        {shapes.map(shape => (
          <li key={shape.key}>
            <button
              type="button"
              class="plain"
              aria-pressed={chosen.value === shape.key}
              onClick={() => (chosen.value = shape.key)}
            >
              {shape.name} <span class="size">{size(shape)}</span>
            </button>
          </li>
        ))}
      </ul>
    </>
  );
}

function size({ kind, points }: Shape): string {
  if (!kind.closed) return `line of ${points.length} points`;
  return `${points.length} corners, ${(area(points) * 100).toFixed(1)} % of the picture`;
}

interface DetailProps {
  shape: Shape;
  store: SettingsStore;
  form: Omit<Parameters<typeof SettingsForm>[0], "schema" | "path">;
  onGone: () => void;
}

function ShapeDetails({ shape, store, form, onGone }: DetailProps) {
  const { draft } = store;
  const element = form.root && elementSchema(form.root, shape);
  const own = form.faults.filter(({ place }) => place.startsWith(shape.key));
  return (
    <fieldset class="nested" disabled={form.disabled}>
      <legend>{shape.name}</legend>
      {element && <SettingsForm {...form} schema={element} path={shape.owner} skip={[shape.key]} />}
      {crossesItself(shape.points, shape.kind.closed) && (
        <p class="fault">Its edges cross: parts of it count as outside. Move a corner.</p>
      )}
      {own.map(({ message, place }) => (
        <p key={place} class="fault" role="alert">
          {message}
        </p>
      ))}
      <button
        type="button"
        class="danger"
        onClick={() => {
          draft.set(shape.owner, undefined);
          onGone();
        }}
      >
        Delete {shape.name}
      </button>
    </fieldset>
  );
}

/** The schema of the list's element that a shape belongs to; null: it is a setting by itself. */
function elementSchema(root: Schema, shape: Shape): Schema | null {
  if (shape.owner === shape.path) return null;
  const slot = drawables(root, {}).slots.find(
    ({ path, element }) =>
      element !== null && path.every((step, index) => step === shape.owner[index]),
  );
  return slot?.element?.schema ?? null;
}

const OTHERS = " The config has others: Save writes them back.";

function Actions({ store, busy }: { store: SettingsStore; busy: boolean }) {
  const frames = useSignal(FRAMES);
  const { draft } = store;
  const changed = draft.changed.value;
  const wrong = store.faults.value.length;
  const stored = store.stored.value;
  const off = busy || wrong > 0 || stored === null;
  const drifts = sessions.value.get(store.session)?.drift?.kind === "settings" && mayAdmin.value;
  return (
    <div class="save-bar">
      <p role="status">
        {changed.length === 0
          ? `These settings run now.${drifts ? OTHERS : ""}`
          : `Changed: ${changed.join(", ").replace(/_/g, " ")}.`}
        {wrong > 0 && ` ${wrong} to correct.`}
        {stored === null &&
          " The running component came as a file: deploy it again to change its settings."}
      </p>
      <div class="actions">
        <label class="frames">
          Frames
          <input
            type="number"
            min={1}
            max={MOST_FRAMES}
            value={frames.value}
            onInput={event => (frames.value = event.currentTarget.valueAsNumber || FRAMES)}
          />
        </label>
        <button
          type="button"
          disabled={off || changed.length === 0}
          onClick={() => void store.tryInShadow(frames.value)}
        >
          Try in shadow
        </button>
        <button
          type="button"
          class="primary"
          disabled={off || (changed.length === 0 && !drifts)}
          onClick={() => void store.save()}
        >
          Save
        </button>
        <button
          type="button"
          disabled={busy || changed.length === 0}
          onClick={() => void store.load()}
        >
          Discard changes
        </button>
      </div>
    </div>
  );
}

function Outcome({ store }: { store: SettingsStore }) {
  const written = store.written.value;
  const session = sessions.value.get(store.session);
  return (
    <>
      {written && (
        <section class="panel" aria-label="Config">
          <ConfigWritten written={written} />
        </section>
      )}
      {session && (
        <Attempted
          store={store.deployments}
          session={session}
          onTake={() => void store.save()}
          take="Save these settings"
        />
      )}
    </>
  );
}
