import type { ConfigStatus } from "../api/types";
import { pathOf } from "../router";
import { config } from "../state/system";
import { Link } from "../ui/link";
import { type Column, Table } from "../ui/table";
import { local } from "../ui/time";
import { PartSection } from "./section";

type Problem = ConfigStatus["problems"][number];
type Camera = ConfigStatus["cameras"][number];
type Drifting = Camera & { drift: NonNullable<Camera["drift"]> };

const PROBLEMS: Column<Problem>[] = [
  { title: "Camera", cell: one => one.camera ?? "the host" },
  {
    title: "Where",
    cell: one => (
      <code>
        {one.variable ?? `${one.file}${one.line === null ? "" : `:${one.line}`}`}
        {one.key !== "" && ` ${one.key}`}
      </code>
    ),
  },
  { title: "What is wrong, and what to do", cell: one => one.message },
];

const DRIFTS: Column<Drifting>[] = [
  { title: "Camera", cell: ({ id }) => <Link href={pathOf("cameras", id)}>{id}</Link> },
  { title: "Differs in", cell: ({ drift }) => [drift.kind, ...drift.keys].join(", ") },
  { title: "Config", cell: ({ drift }) => drift.desired },
  { title: "Runs", cell: ({ drift }) => drift.actual ?? "nothing" },
  { title: "Since", cell: ({ drift }) => local(drift.since) },
  { title: "Why", cell: ({ drift }) => drift.reason },
];

const problemKey = (one: Problem) => `${one.file} ${one.key} ${one.message}`;

/** The config as it is in force, beside the file and beside what runs. */
export function ConfigInForce() {
  return (
    <PartSection
      title="Config in force"
      part={config}
      wide
      aside={({ applied }) => <span class="quiet">since {local(applied)}</span>}
    >
      {now => {
        const drifting = now.cameras.filter((one): one is Drifting => one.drift !== null);
        const well =
          !now.refused && !now.problems.length && !now.waiting.length && !drifting.length;
        return (
          <>
            {now.refused && (
              <div class="refused" role="alert">
                <h3>The file as it is now was refused</h3>
                <p>
                  It was read at {local(now.refused.time)} ({now.refused.cause}). The config from
                  before stays in force until the file is right; the host reads it by itself.
                </p>
                <Table
                  caption="What is wrong with the config file"
                  columns={PROBLEMS}
                  rows={now.refused.problems}
                  keyOf={problemKey}
                />
              </div>
            )}
            {now.problems.length > 0 && (
              <>
                <h3>Faults of what is in force</h3>
                <Table
                  caption="Faults of the config in force"
                  columns={PROBLEMS}
                  rows={now.problems}
                  keyOf={problemKey}
                />
              </>
            )}
            {now.waiting.length > 0 && (
              <p>
                These keys take effect when the host is restarted:{" "}
                <code>{now.waiting.join(", ")}</code>
              </p>
            )}
            {drifting.length > 0 && (
              <>
                <h3>Cameras that do not run as the config says</h3>
                <Table
                  caption="Cameras that differ from the config"
                  columns={DRIFTS}
                  rows={drifting}
                  keyOf={one => one.id}
                />
              </>
            )}
            {well && (
              <p>The file is in force as it is, and {now.cameras.length} cameras run as it says.</p>
            )}
          </>
        );
      }}
    </PartSection>
  );
}
