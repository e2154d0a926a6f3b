import { useSignal } from "@preact/signals";
import { useEffect, useId, useMemo } from "preact/hooks";
import { ApiError } from "../api/client";
import { pathOf } from "../router";
import { SettingsForm } from "../settings/form";
import { place } from "../settings/json";
import { field } from "../settings/schema";
import { Adding, type FoundCamera, type Probe } from "../state/adding";
import { loadPipelines, pipelines } from "../state/deployments";
import { mayAdmin, mayOperate } from "../state/me";
import { sessions } from "../state/sessions";
import { models } from "../state/system";
import { Empty } from "../ui/empty";
import { Link } from "../ui/link";
import { ConfigWritten, sentence } from "../ui/written";
import { drawables } from "./zones/shapes";
import { type Typed, nameFault, parted, sourceOf, substreamOf } from "./add/source";
import "./add.css";

/** The setting of the built-in pipelines that the suggested rate is for. */
const RATE = "max_results_per_second";

/** A camera by its address or by discovery. */
export default function AddPage() {
  const store = useMemo(() => new Adding(), []);
  const typed = useSignal<Typed>({ url: "", user: "", password: "" });
  const substream = useSignal("");
  const transport = useSignal("");
  useEffect(() => void loadPipelines(), []);
  useEffect(() => void models.load(), []);
  if (!mayOperate.value) {
    return (
      <Empty title="Adding cameras needs an operator">
        <p>Your token only looks. Ask for one with the role operator or admin.</p>
      </Empty>
    );
  }
  return (
    <>
      <div class="bar">
        <h1>Add a camera</h1>
      </div>
      <div class="add">
        <SourceForm store={store} typed={typed} substream={substream} transport={transport} />
        <ProbeResult store={store} />
        <CameraForm store={store} typed={typed} substream={substream} transport={transport} />
      </div>
    </>
  );
}

interface FormProps {
  store: Adding;
  typed: { value: Typed };
  substream: { value: string };
  transport: { value: string };
}

function SourceForm({ store, typed, substream, transport }: FormProps) {
  const id = useId();
  const fault = useSignal<string | null>(null);
  const busy = store.probed.value.state === "asked";
  const change = (changes: Partial<Typed>) => {
    typed.value = { ...typed.value, ...changes };
    fault.value = null;
  };
  const probe = (event: Event) => {
    event.preventDefault();
    // A password in the address is not to stay in sight.
    const apart = parted(typed.value.url);
    if (apart.user !== "") change(apart);
    const made = sourceOf(typed.value);
    if ("fault" in made) fault.value = made.fault;
    else void store.probe(made.source, transport.value);
  };
  return (
    <form class="panel" onSubmit={probe}>
      <h2>1. Source</h2>
      <Discovery
        store={store}
        typed={typed}
        onChoose={(url, smaller) => {
          change({ url });
          substream.value = smaller;
        }}
      />
      <div class="fields">
        <label class="wide" for={`${id}-url`}>
          Address
          <input
            id={`${id}-url`}
            type="text"
            inputMode="url"
            autocomplete="off"
            spellcheck={false}
            placeholder="rtsp://192.0.2.10/main"
            value={typed.value.url}
            aria-invalid={fault.value !== null}
            aria-describedby={fault.value === null ? undefined : `${id}-fault`}
            onInput={event => change({ url: event.currentTarget.value })}
          />
        </label>
        {fault.value !== null && (
          <p class="fault wide" id={`${id}-fault`} role="alert">
            {fault.value}
          </p>
        )}
        <label class="wide" for={`${id}-substream`}>
          Substream
          <input
            id={`${id}-substream`}
            type="text"
            inputMode="url"
            autocomplete="off"
            spellcheck={false}
            placeholder="none: one stream does both"
            value={substream.value}
            aria-describedby={`${id}-about`}
            onInput={event => (substream.value = event.currentTarget.value)}
          />
        </label>
        <p class="quiet wide" id={`${id}-about`}>
          A smaller stream of the same camera, which costs less to analyse. Viewers get the address
          above.
        </p>
        <label>
          User
          <input
            type="text"
            autocomplete="off"
            value={typed.value.user}
            onInput={event => change({ user: event.currentTarget.value })}
          />
        </label>
        <label>
          Password
          <input
            type="password"
            autocomplete="new-password"
            value={typed.value.password}
            onInput={event => change({ password: event.currentTarget.value })}
          />
        </label>
        <label>
          Transport
          <select
            value={transport.value}
            onChange={event => (transport.value = event.currentTarget.value)}
          >
            <option value="">TCP, as usual</option>
            <option value="udp">UDP</option>
          </select>
        </label>
      </div>
      <button type="submit" class="primary" disabled={busy}>
        {busy ? "Probing …" : "Probe"}
      </button>
    </form>
  );
}

/** What is done with an address and that of a substream, which may be empty. */
type Choose = (url: string, substream: string) => void;

function Discovery({
  store,
  typed,
  onChoose,
}: {
  store: Adding;
  typed: { value: Typed };
  onChoose: Choose;
}) {
  const found = store.found.value;
  const { user, password } = typed.value;
  return (
    <div class="discovery">
      <button
        type="button"
        disabled={found.state === "asked"}
        onClick={() => void store.discover(user, password)}
      >
        {found.state === "asked" ? "Searching …" : "Search the network"}
      </button>{" "}
      <span class="quiet">
        for ONVIF cameras, with the user and password below if there are any.
      </span>
      {found.state === "failed" && <SearchFailed error={found.error} />}
      {found.state === "ready" && found.answer.length === 0 && (
        <p role="status">
          No camera has answered. Cameras of other networks, and those with ONVIF off, are added by
          their address.
        </p>
      )}
      {found.state === "ready" && found.answer.length > 0 && (
        <ul role="list">
          {found.answer.map(camera => (
            <FoundRow key={camera.address} camera={camera} onChoose={onChoose} />
          ))}
        </ul>
      )}
    </div>
  );
}

function SearchFailed({ error }: { error: ApiError }) {
  const absent = error.code === "unknown_path";
  return (
    <p role="alert" class="fault">
      {absent ? "This host does not search. Type the address." : error.message}
    </p>
  );
}

function FoundRow({ camera, onChoose }: { camera: FoundCamera; onChoose: Choose }) {
  const { proposal } = camera;
  const profile = (url: string) =>
    camera.streams.find(({ source }) => source === url)?.profile ?? url;
  return (
    <li>
      <strong>{camera.name ?? camera.address}</strong>{" "}
      <span class="quiet">
        {camera.name !== null && camera.address} {camera.hardware}
      </span>
      {camera.fault !== null && <p class="fault">{camera.fault}</p>}
      <span class="actions">
        {proposal !== null && (
          <button
            type="button"
            class="primary"
            onClick={() => onChoose(proposal.source, proposal.substream)}
          >
            Use {profile(proposal.source)}, analyse {profile(proposal.substream)}
          </button>
        )}
        {camera.streams.map(({ profile, source, encoding, size }) => (
          <button key={source} type="button" onClick={() => onChoose(source, "")}>
            Use {profile}
            <span class="quiet">
              {encoding} {size && `${size[0]} × ${size[1]}`}
            </span>
          </button>
        ))}
      </span>
    </li>
  );
}

/** What to do where the host itself does not say. */
const TODO: Record<string, string> = {
  source_not_allowed: "Ask an admin, or have the source added to [subscriptions] sources.",
  busy: "Four sources are being probed already. Try again in a few seconds.",
  invalid_source: "Correct the address.",
  unknown_path: "This host cannot probe. Save the camera, and see on its page whether it plays.",
  timed_out: "Check the address, then probe again.",
};

function ProbeResult({ store }: { store: Adding }) {
  const probed = store.probed.value;
  if (probed.state === "idle") return null;
  return (
    <section class="panel" aria-label="What the source is" aria-live="polite">
      <h2>What it is</h2>
      {probed.state === "asked" && (
        <p>
          The host connects and waits for pictures: a few seconds, 40 at most.{" "}
          <progress aria-label="Probing" />
        </p>
      )}
      {probed.state === "failed" && (
        <div class="failure" role="alert">
          <p>
            <strong>Not probed.</strong> {probed.error.message}{" "}
            <span class="quiet">({probed.error.code})</span>
          </p>
          {TODO[probed.error.code] && <p>{TODO[probed.error.code]}</p>}
        </div>
      )}
      {probed.state === "ready" && <Probed probe={probed.answer} store={store} />}
    </section>
  );
}

function Probed({ probe, store }: { probe: Probe; store: Adding }) {
  const { fault, picture, size, rate, suggested_rate: suggested } = probe;
  const takesRate = hasRate(store);
  return (
    <div class="probed">
      {picture !== null && <img class="still" src={picture} alt="A picture of the camera" />}
      <div>
        {fault !== null && (
          <div class="failure" role="alert">
            <p>
              <strong>{probe.plays ? "It plays, but:" : "It does not play."}</strong>{" "}
              {sentence(fault.message)} <span class="quiet">({fault.kind})</span>
            </p>
            <p>{sentence(fault.advice)}</p>
          </div>
        )}
        <dl>
          {row("Codec", probe.codec?.toUpperCase())}
          {row("Size", size && `${size[0]} × ${size[1]}`)}
          {row("Rate", rate === null ? null : `${rate.toFixed(1)} pictures a second`)}
          {row("Bits", probe.kbit_s === null ? null : `${Math.round(probe.kbit_s)} kbit/s`)}
          {row(
            "Key picture",
            probe.gop === null ? null : `every ${Math.round(probe.gop)} pictures`,
          )}
          {row("Reader", probe.reader && `${probe.reader.kind}: ${probe.reader.reason}`)}
          {row("Not read", probe.left_out.join(", "))}
          {row("Suggested", suggested === null ? null : `${suggested} results a second here`)}
        </dl>
        {suggested !== null && takesRate && rate !== null && suggested < rate && (
          <button type="button" onClick={() => store.draft.set([RATE], suggested)}>
            Use the suggested rate
          </button>
        )}
        {suggested !== null && rate !== null && suggested >= rate && (
          <p class="quiet">This machine has room for every picture of it.</p>
        )}
      </div>
    </div>
  );
}

function hasRate(store: Adding): boolean {
  const schema = store.schema.value;
  if (schema === null) return false;
  const it = field(schema, schema);
  return it.kind === "object" && it.members.some(({ name }) => name === RATE);
}

function row(title: string, value: string | null | undefined) {
  if (value == null || value === "") return null;
  return (
    <>
      <dt>{title}</dt>
      <dd>{value}</dd>
    </>
  );
}

function CameraForm({ store, typed, substream, transport }: FormProps) {
  const id = useId();
  const name = useSignal("");
  const tried = useSignal(false);
  const known = pipelines.value;
  const made = sourceOf(typed.value);
  const smaller = substreamOf(typed.value, substream.value);
  const wrong = nameFault(name.value, sessions.value.keys());
  const written = store.written.value;
  const save = async (event: Event) => {
    event.preventDefault();
    tried.value = true;
    const source = sourceOf(typed.value);
    const analysed = substreamOf(typed.value, substream.value);
    if (wrong !== null || "fault" in source || "fault" in analysed) return;
    if (store.pipeline.value === "") return;
    await store.save(name.value, source.source, analysed.source, transport.value);
    if (store.written.value?.as.state === "written") {
      // The password is the host's now.
      typed.value = { url: "", user: "", password: "" };
      substream.value = "";
      name.value = "";
      tried.value = false;
    }
  };
  return (
    <form class="panel" onSubmit={event => void save(event)} noValidate>
      <h2>2. Camera</h2>
      <div class="fields">
        <label for={`${id}-name`}>
          Name
          <input
            id={`${id}-name`}
            type="text"
            autocomplete="off"
            value={name.value}
            aria-invalid={tried.value && wrong !== null}
            aria-describedby={`${id}-fault`}
            onInput={event => (name.value = event.currentTarget.value)}
          />
        </label>
        <label>
          Pipeline
          <select
            value={store.pipeline.value}
            aria-invalid={tried.value && store.pipeline.value === ""}
            onChange={event => void store.choose(event.currentTarget.value)}
          >
            <option value="">–</option>
            {known.state === "ready" &&
              known.all.map(pipeline => (
                <option key={pipeline.name} value={pipeline.name}>
                  {pipeline.name}
                </option>
              ))}
          </select>
        </label>
      </div>
      <p class="fault" id={`${id}-fault`} role="alert" hidden={!tried.value || valid()}>
        {wrong ?? faultOf(made) ?? faultOf(smaller) ?? "Choose a pipeline."}
      </p>
      {store.pipeline.value !== "" && <PipelineSettings store={store} />}
      {mayAdmin.value ? (
        <button
          type="submit"
          class="primary"
          disabled={store.saving.value || store.faults.value.length > 0}
        >
          {store.saving.value ? "Saving …" : "Save"}
        </button>
      ) : (
        <p class="quiet">You may probe sources. Saving one in the config needs the role admin.</p>
      )}
      {written && (
        <>
          <div class="outcome">
            <ConfigWritten written={written.as} camera="new" />
          </div>
          {written.as.state === "written" && (
            <p>
              <Link href={pathOf("cameras", written.id)}>See {written.id}</Link> or{" "}
              <Link href={pathOf("zones", written.id)}>draw its zones</Link>.
            </p>
          )}
        </>
      )}
    </form>
  );

  function valid(): boolean {
    const faults = [wrong, faultOf(made), faultOf(smaller)];
    return faults.every(fault => fault === null) && store.pipeline.value !== "";
  }
}

function faultOf(made: { source: string } | { fault: string }): string | null {
  return "fault" in made ? made.fault : null;
}

function PipelineSettings({ store }: { store: Adding }) {
  const schema = store.schema.value;
  const described = store.described.value;
  const form = { draft: store.draft, faults: store.faults.value, path: [] };
  const drawn = schema === null ? [] : drawables(schema, {}).slots.map(({ path }) => path);
  return (
    <fieldset>
      <legend>Settings</legend>
      {described.state === "asked" ? (
        <p role="status" class="quiet">
          The host asks the pipeline for its settings; one that is new is compiled first.{" "}
          <progress aria-label="Asking the pipeline" />
        </p>
      ) : schema === null ? (
        <>
          <p class="quiet">
            The pipeline has not said what its settings are
            {described.state === "failed" && ` (${described.error.message})`}: write them as JSON,
            or leave them and set them on the camera's page.
          </p>
          <SettingsForm {...form} schema={{}} root={{}} />
        </>
      ) : (
        <>
          <SettingsForm {...form} schema={schema} root={schema} skip={drawn.map(place)} />
          {drawn.length > 0 && (
            <p class="quiet">Zones are drawn on the picture, once the camera runs.</p>
          )}
        </>
      )}
    </fieldset>
  );
}
