import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import type { HostPart } from "../api/types";
import { hostStatus, loadReadiness, readiness } from "../state/host";
import { Failure } from "../ui/failure";
import { Status } from "../ui/status";
import { type Column, Table } from "../ui/table";
import { local } from "../ui/time";
import { Section } from "./section";

/** What each part of the host does, for those who see its name for the first time. */
const PARTS = {
  storage: "events and pictures are written",
  clock: "the machine's clock runs evenly",
  config: "the config file is in force",
  inference: "models run",
} as const;

type Row = { name: string; part: HostPart; what: string };

const COLUMNS: Column<Row>[] = [
  { title: "Part", cell: row => row.name },
  { title: "State", cell: row => <Status state={row.part.state} /> },
  { title: "Since", cell: row => <time dateTime={row.part.since}>{local(row.part.since)}</time> },
  { title: "What", cell: row => row.part.reason ?? `${row.what}.` },
];

export function Health() {
  const error = useSignal<unknown>(null);
  const ask = () =>
    loadReadiness().then(
      () => (error.value = null),
      (reason: unknown) => (error.value = reason),
    );
  // Each change comes over the WebSocket; the answer to this has all that is well, too.
  useEffect(() => void ask(), [hostStatus.value]);
  const ready = readiness.value;
  if (!ready?.host) {
    return (
      <Section title="Host">
        {error.value === null ? (
          <p class="quiet">Loading …</p>
        ) : (
          <Failure what="The host does not say how it is" error={error.value} retry={ask} />
        )}
      </Section>
    );
  }
  const { host } = ready;
  const names = Object.keys(PARTS) as (keyof typeof PARTS)[];
  const rows: Row[] = names.map(name => ({ name, part: host[name], what: PARTS[name] }));
  for (const [name, part] of Object.entries(host.sinks ?? {})) {
    rows.push({ name, part, what: "it takes what is written to it" });
  }
  return (
    <Section title="Host" aside={<span class="quiet">{ready.status}</span>}>
      <Table caption="Parts of the host" columns={COLUMNS} rows={rows} keyOf={row => row.name} />
      <p class="quiet">
        {host.events_waiting} events wait for the disk. Lost since the host started:{" "}
        {host.events_lost} events, {host.pictures_lost} pictures.
      </p>
    </Section>
  );
}
