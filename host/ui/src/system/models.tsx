import type { Models } from "../api/types";
import { models } from "../state/system";
import { type Column, Table } from "../ui/table";
import { PartSection } from "./section";

type Model = Models["models"][number];
type Provider = Model["runs_on"][number];

/** "CPU 187 nodes" of the providers' own names. */
function runsOn(providers: readonly Provider[]): string {
  return providers
    .map(({ provider, nodes }) => `${provider.replace(/ExecutionProvider$/, "")}: ${nodes} nodes`)
    .join(", ");
}

const COLUMNS: Column<Model>[] = [
  {
    title: "Model",
    cell: model => (
      <>
        {model.name}
        <br />
        <span class="quiet">{model.description}</span>
      </>
    ),
  },
  { title: "State", cell: model => model.state },
  { title: "Device", cell: model => model.device },
  {
    title: "Runs on",
    cell: model => (
      <>
        {runsOn(model.runs_on) || <span class="quiet">nothing before it is loaded</span>}
        {model.fell_back !== null && <p class="fell-back">Not on its device: {model.fell_back}</p>}
      </>
    ),
  },
  {
    title: "Batches",
    cell: ({ batching }) =>
      batching ? `up to ${batching.max_batch}, ${batching.batch_delay_ms} ms` : "no",
  },
  { title: "Licence", cell: model => model.licence },
];

export function ModelList() {
  return (
    <PartSection
      title="Models"
      part={models}
      wide
      aside={({ runtime }) => <Runtime of={runtime} />}
    >
      {all => (
        <>
          {all.models.length === 0 ? (
            <p>
              There are no models. <code>ocelli models add</code> adds one.
            </p>
          ) : (
            <Table
              caption="Models and what runs them"
              columns={COLUMNS}
              rows={all.models}
              keyOf={model => model.name}
            />
          )}
          {all.earlier.length > 0 && (
            <p>
              Sessions still run earlier versions:{" "}
              {all.earlier
                .map(one => `${one.name} ${one.sha256.slice(0, 12)} (${runsOn(one.runs_on)})`)
                .join("; ")}
            </p>
          )}
        </>
      )}
    </PartSection>
  );
}

function Runtime({ of }: { of: Models["runtime"] }) {
  const processes = of.processes.map(
    ({ pid, duty, sessions }) => `${pid} (${duty}, ${sessions} sessions)`,
  );
  return (
    <span class="quiet">
      ONNX Runtime {of.version ?? "not loaded"}, isolation {of.isolation}
      {processes.length > 0 && `; processes ${processes.join(", ")}`}
      {!of.serves && "; not every session is served"}
    </span>
  );
}
