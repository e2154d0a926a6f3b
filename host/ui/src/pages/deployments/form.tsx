import { useSignal } from "@preact/signals";
import { useEffect, useId } from "preact/hooks";
import type { Session } from "../../api/types";
import { type DeployRequest, loadPipelines, pipelines } from "../../state/deployments";
import { bytes } from "../../ui/time";

/** Frames of a comparison unless the user says otherwise: some seconds of most cameras. */
const SHADOW = 100;
/** As in the host. */
const MOST_SHADOW = 15_000;

type Way = "look" | "compare" | "now";

const WAYS: readonly [Way, string, string][] = [
  ["look", "Compare, then I decide", "Nothing changes until you take it over."],
  ["compare", "Compare, then take over", "By itself, if both agree by the share below."],
  ["now", "Take over at once", "It is checked and tried on one frame before."],
];

interface Props {
  session: Session;
  busy: boolean;
  onDeploy: (request: DeployRequest) => void;
}

/** What to deploy, and how. */
export function DeployForm({ session, busy, onDeploy }: Props) {
  const id = useId();
  const file = useSignal<File | null>(null);
  const stored = useSignal("");
  const way = useSignal<Way>("look");
  const frames = useSignal(SHADOW);
  const threshold = useSignal<number | null>(null);
  const state = useSignal<DeployRequest["state"]>(null);
  const over = useSignal(false);
  useEffect(() => void loadPipelines(), []);
  const known = pipelines.value;

  const choose = (chosen: File | null | undefined) => {
    file.value = chosen ?? null;
    if (chosen) stored.value = "";
  };
  const submit = (event: Event) => {
    event.preventDefault();
    const chosen = file.value;
    if (chosen === null && stored.value === "") return;
    const compared = way.value !== "now";
    onDeploy({
      component: chosen === null ? { pipeline: stored.value } : { file: chosen, name: chosen.name },
      shadow: compared ? frames.value : 0,
      shadowOnly: way.value === "look",
      threshold: way.value === "compare" ? threshold.value : null,
      state: state.value,
    });
  };
  return (
    <form class="deploy panel" onSubmit={submit}>
      <h2>Deploy</h2>
      <div
        class={over.value ? "drop over" : "drop"}
        onDragOver={event => {
          event.preventDefault();
          over.value = true;
        }}
        onDragLeave={() => (over.value = false)}
        onDrop={event => {
          event.preventDefault();
          over.value = false;
          choose(event.dataTransfer?.files[0]);
        }}
      >
        <label for={`${id}-file`}>
          Drop a component (.wasm) here, or choose its file
          <input
            id={`${id}-file`}
            type="file"
            accept=".wasm,application/wasm"
            onChange={event => choose(event.currentTarget.files?.[0])}
          />
        </label>
        {file.value !== null && (
          <p>
            <strong>{file.value.name}</strong>, {bytes(file.value.size)}{" "}
            <button type="button" class="plain" onClick={() => (file.value = null)}>
              Take away
            </button>
          </p>
        )}
        {file.value === null && (
          <label>
            or a stored pipeline
            <select
              value={stored.value}
              onChange={event => (stored.value = event.currentTarget.value)}
            >
              <option value="">–</option>
              {known.state === "ready" &&
                known.all.map(({ name, digest }) => (
                  <option key={name} value={name}>
                    {name} ({digest.slice(0, 12)}
                    {digest.startsWith(session.deployment) ? ", runs now" : ""})
                  </option>
                ))}
            </select>
          </label>
        )}
        {known.state === "failed" && <p class="quiet">No list of pipelines: {known.reason}</p>}
      </div>
      <fieldset>
        <legend>How</legend>
        {WAYS.map(([value, title, says]) => (
          <label key={value}>
            <input
              type="radio"
              name={`${id}-way`}
              checked={way.value === value}
              onChange={() => (way.value = value)}
            />
            <span>
              {title}. <span class="quiet">{says}</span>
            </span>
          </label>
        ))}
        <div class="bar">
          {way.value !== "now" && session.state !== "running" && (
            <p class="quiet">
              The camera is {session.state}: a comparison waits until pictures come, for a minute or
              two, and gives up then.
            </p>
          )}
          {way.value !== "now" && (
            <label>
              Frames
              <input
                type="number"
                min={1}
                max={MOST_SHADOW}
                required
                value={frames.value}
                onInput={event => (frames.value = event.currentTarget.valueAsNumber || 0)}
              />
            </label>
          )}
          {way.value === "compare" && (
            <label>
              Least agreement, %
              <input
                type="number"
                min={0}
                max={100}
                placeholder="any"
                value={threshold.value === null ? "" : Number((threshold.value * 100).toFixed(2))}
                onInput={event => {
                  const share = event.currentTarget.valueAsNumber / 100;
                  threshold.value = Number.isNaN(share) ? null : share;
                }}
              />
            </label>
          )}
          <label>
            State of the running version
            <select
              value={state.value ?? ""}
              onChange={event => {
                state.value = (event.currentTarget.value || null) as DeployRequest["state"];
              }}
            >
              <option value="">as the config says</option>
              <option value="keep">hand over, else keep running it</option>
              <option value="fresh">start without it</option>
            </select>
          </label>
        </div>
      </fieldset>
      <button
        type="submit"
        class="primary"
        disabled={busy || (file.value === null && stored.value === "")}
      >
        {way.value === "look" ? "Shadow" : "Deploy"}
      </button>
    </form>
  );
}
