import type { SystemSink } from "../api/types";
import { system } from "../state/system";
import { Status } from "../ui/status";
import { type Column, Table } from "../ui/table";
import { local } from "../ui/time";
import { PartSection } from "./section";
import { sinkFigures } from "./words";

const KINDS: Record<SystemSink["kind"], string> = {
  redis: "Redis",
  mqtt: "MQTT",
  webhook: "webhook",
};

type Row = { name: string; sink: SystemSink };

const COLUMNS: Column<Row>[] = [
  { title: "Sink", cell: row => row.name },
  { title: "Kind", cell: row => KINDS[row.sink.kind] },
  { title: "Address", cell: row => row.sink.address },
  {
    title: "State",
    cell: ({ sink }) => (
      <>
        <Status state={sink.up ? "ok" : "degraded"} /> {sink.reason}
      </>
    ),
  },
  { title: "Events", cell: row => sinkFigures(row.sink) },
  {
    title: "Last written",
    cell: ({ sink }) =>
      sink.last_written === null ? (
        "none since the host started"
      ) : (
        <time dateTime={sink.last_written}>{local(sink.last_written)}</time>
      ),
  },
];

/** Where events go besides subscribers, and how far each of these destinations has come. */
export function Sinks() {
  return (
    <PartSection title="Sinks" part={system} wide>
      {status => {
        const rows = Object.entries(status.sinks).map(([name, sink]) => ({ name, sink }));
        return rows.length === 0 ? (
          <p class="quiet">Events go to subscribers alone: the config has no sink.</p>
        ) : (
          <Table
            caption="Where events are written"
            columns={COLUMNS}
            rows={rows}
            keyOf={row => row.name}
          />
        );
      }}
    </PartSection>
  );
}
