import type { SystemProcess } from "../api/types";
import { pathOf } from "../router";
import { system } from "../state/system";
import { Link } from "../ui/link";
import { type Column, Table } from "../ui/table";
import { bytes, duration } from "../ui/time";
import { Amount } from "./amount";
import { PartSection } from "./section";

const KINDS: Record<SystemProcess["kind"], string> = {
  host: "the host",
  inference: "runs models",
  worker: "runs a session",
  reader: "reads a camera or a file",
  compiler: "compiles a pipeline",
};

const COLUMNS: Column<SystemProcess>[] = [
  {
    title: "Process",
    cell: one => (
      <>
        {one.kind} <span class="quiet">{KINDS[one.kind]}</span>
      </>
    ),
  },
  {
    title: "Camera",
    cell: one => one.session && <Link href={pathOf("cameras", one.session)}>{one.session}</Link>,
  },
  {
    title: "Private memory",
    cell: one => (
      <Amount name={`Private memory of ${one.pid}`} used={one.private} limit={one.limit} />
    ),
  },
  { title: "Resident", cell: one => bytes(one.resident), numeric: true },
  { title: "CPU time", cell: one => duration(one.cpu_s * 1000), numeric: true },
  { title: "Threads", cell: one => one.threads, numeric: true },
  { title: "PID", cell: one => one.pid, numeric: true },
];

export function Processes() {
  return (
    <PartSection
      title="Processes"
      part={system}
      wide
      aside={({ processes, version }) => (
        <span class="quiet">
          {processes.length} of Ocelli {version}
        </span>
      )}
    >
      {({ processes }) => (
        <Table
          caption="Processes of the host"
          columns={COLUMNS}
          rows={processes}
          keyOf={one => String(one.pid)}
        />
      )}
    </PartSection>
  );
}
