import type { KeptData, SystemStatus } from "../api/types";
import { system } from "../state/system";
import { type Column, Table } from "../ui/table";
import { Amount } from "./amount";
import { PartSection } from "./section";
import { forecast } from "./words";

type Row = { what: string; used: number; limit: number; words: string };

const COLUMNS: Column<Row>[] = [
  { title: "What", cell: row => row.what },
  {
    title: "In use",
    cell: row => <Amount name={row.what} used={row.used} limit={row.limit} />,
  },
  { title: "Forecast", cell: row => row.words },
];

function rows({ disks, store }: SystemStatus): Row[] {
  const kept = (what: string, data: KeptData) => ({
    what,
    used: data.bytes,
    limit: data.limit,
    words: forecast(data),
  });
  return [
    kept("events", store.events),
    kept("pictures", store.attachments),
    kept("clips", store.clips),
    ...disks.map(({ folder, free, size }) => ({
      what: `disk of ${folder}`,
      used: size - free,
      limit: size,
      words: "",
    })),
  ];
}

/** What is kept, and for how long. */
export function Store() {
  return (
    <PartSection title="Storage" part={system}>
      {status => (
        <Table
          caption="What is stored"
          columns={COLUMNS}
          rows={rows(status)}
          keyOf={row => row.what}
        />
      )}
    </PartSection>
  );
}
