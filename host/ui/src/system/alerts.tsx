import { ALERTS, alertName } from "../events/words";
import { system } from "../state/system";
import { Link } from "../ui/link";
import { Status } from "../ui/status";
import { type Column, Table } from "../ui/table";
import { PartSection } from "./section";
import { threshold } from "./words";

interface Row {
  alert: string;
  text: string;
  key: string | null;
  /** Cameras for which it is raised; empty: the host itself; null: it is not raised. */
  raised: readonly string[] | null;
}

const COLUMNS: Column<Row>[] = [
  { title: "Alert", cell: row => alertName(row.alert) },
  {
    title: "Raised",
    cell: row => (
      <>
        {row.text} {row.key && <code>{row.key}</code>}
      </>
    ),
  },
  { title: "Now", cell: row => <Now raised={row.raised} /> },
];

function Now({ raised }: { raised: Row["raised"] }) {
  if (raised === null) return <span class="quiet">no</span>;
  return (
    <>
      <Status state="degraded" bare />{" "}
      {raised.length === 0 && <Link href="/events?kind=alert">the host</Link>}
      {raised.map((session, index) => (
        <span key={session}>
          {index > 0 && ", "}
          <Link href={`/events?${new URLSearchParams({ camera: session, kind: "alert" })}`}>
            {session}
          </Link>
        </span>
      ))}
    </>
  );
}

/** Every alert with its threshold, and where it is raised. */
export function Alerts() {
  return (
    <PartSection
      title="Alerts"
      part={system}
      wide
      aside={() => (
        <span class="quiet">
          thresholds: <code>[alerts]</code> in the config
        </span>
      )}
    >
      {({ thresholds, alerts }) => {
        const names = new Set([...Object.keys(ALERTS), ...alerts.map(one => one.alert)]);
        const rows = [...names].map(alert => ({
          alert,
          ...threshold(alert, thresholds),
          raised: alerts.find(one => one.alert === alert)?.sessions ?? null,
        }));
        // Those that are raised first; the order is else that of the manual.
        rows.sort((one, other) => Number(other.raised !== null) - Number(one.raised !== null));
        return (
          <Table
            caption="Alerts and their thresholds"
            columns={COLUMNS}
            rows={rows}
            keyOf={row => row.alert}
          />
        );
      }}
    </PartSection>
  );
}
