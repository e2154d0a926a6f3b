import type { AuditLine } from "../api/types";
import { audit } from "../state/system";
import { type Column, Table } from "../ui/table";
import { local } from "../ui/time";
import { PartSection } from "./section";

const WHAT: Record<AuditLine["what"], string> = {
  done: "done",
  denied: "denied",
  not_authenticated: "not authenticated",
  turned_away: "turned away",
};

const COLUMNS: Column<AuditLine>[] = [
  { title: "Time", cell: line => <time dateTime={line.time}>{local(line.time)}</time> },
  { title: "Who", cell: line => (line.caller ? `${line.caller} (${line.role})` : "unknown") },
  { title: "From", cell: line => line.peer },
  { title: "Action", cell: line => line.action ?? "" },
  { title: "Subject", cell: line => line.subject ?? "" },
  {
    title: "Outcome",
    cell: line => [WHAT[line.what], line.outcome ?? line.reason].filter(Boolean).join(": "),
  },
  { title: "Detail", cell: line => line.detail ?? "" },
];

/** Who changed what and who was refused, for admins. */
export function Audit() {
  return (
    <PartSection title="Audit log" part={audit} wide>
      {({ lines }) =>
        lines.length === 0 ? (
          <p>Nobody has changed anything, and nobody was refused, since the host started.</p>
        ) : (
          <Table
            caption="The newest lines of the audit log"
            columns={COLUMNS}
            rows={[...lines].reverse()}
            keyOf={line => JSON.stringify(line)}
          />
        )
      }
    </PartSection>
  );
}
