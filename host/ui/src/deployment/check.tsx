import type { Deployment } from "../api/types";

type Report = NonNullable<Deployment["check"]>;
type Problem = Report["problems"][number];

const TITLES: Record<Problem["kind"], string> = {
  too_large: "Too large",
  not_wasm: "Not WebAssembly",
  core_module: "A core module, not a component",
  malformed: "Broken or unsupported",
  other_world: "A component for something else",
  unsupported_version: "Another version of the contract",
  unknown_import: "Imports what the host does not offer",
  mismatched_import: "An import of another type",
  missing_export: "An export is missing",
  mismatched_export: "An export of another type",
  unsigned: "Not signed",
  wrong_signature: "Wrong signature",
  not_compiled: "The compiler refuses it",
};

/** What is wrong with a component, each with both types. */
export function CheckProblems({ problems }: { problems: readonly Problem[] }) {
  return (
    <ul class="problems">
      {problems.map((problem, index) => (
        <li key={`${index} ${problem.item}`}>
          <p>
            <strong>{TITLES[problem.kind] ?? problem.kind}</strong>
            {problem.item !== null && (
              <>
                {": "}
                <code>{problem.item}</code>
              </>
            )}
          </p>
          {problem.found === null && problem.expected === null ? (
            <p>{problem.message}</p>
          ) : (
            <dl class="types">
              <dt>component</dt>
              <dd>{problem.found === null ? "lacks it" : <code>{problem.found}</code>}</dd>
              <dt>contract</dt>
              <dd>{problem.expected === null ? "has none" : <code>{problem.expected}</code>}</dd>
            </dl>
          )}
        </li>
      ))}
    </ul>
  );
}

/** The report of a check that went well, in a line. */
export function CheckLine({ report }: { report: Report }) {
  if (report.problems.length > 0) return <CheckProblems problems={report.problems} />;
  return (
    <p class="quiet">
      Checked in {report.check_ms} ms: ocelli:pipeline {report.version ?? "of unknown version"}
      {report.signed_by !== null && `, signed by ${report.signed_by}`}; all imports and exports fit.
    </p>
  );
}
