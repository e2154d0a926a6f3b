import type { Written } from "../state/config";
import { Copy } from "./copy";

interface Props {
  written: Written;
  /** A new camera does not run before the config has it. */
  camera?: "known" | "new";
}

/** What has become of a change of the config file. */
export function ConfigWritten({ written, camera = "known" }: Props) {
  switch (written.state) {
    case "written":
      return <p role="status">Saved in the config file, its comments kept.</p>;
    case "paste":
      return (
        <div role="status">
          <p>
            {sentence(written.reason)} Paste this into the config file
            {camera === "known" ? ", so that it says what runs." : ": then the camera starts."}
          </p>
          <Copy label="For the config file" text={written.toml} />
        </div>
      );
    case "refused": {
      const problems = problemsOf(written.error.problem["config_problems"]);
      return (
        <div class="failure" role="alert">
          <p>
            <strong>
              {written.error.code === "config_not_applied"
                ? "Saved in the config, and not in force."
                : "Not saved in the config."}
            </strong>{" "}
            {written.error.message} <span class="quiet">({written.error.code})</span>
          </p>
          {problems.length > 0 && (
            <ul>
              {problems.map(problem => (
                <li key={problem}>{problem}</li>
              ))}
            </ul>
          )}
          {camera === "known" && (
            <p>
              What runs and what the config says may differ now. The page of deployments shows it as
              drift.
            </p>
          )}
        </div>
      );
    }
  }
}

/** Words as a sentence: a capital letter and a full stop. */
export function sentence(words: string): string {
  const text = `${words.charAt(0).toUpperCase()}${words.slice(1)}`;
  return /[.!?]$/.test(text) ? text : `${text}.`;
}

/** The config's problems as lines, whatever the host has of each. */
function problemsOf(value: unknown): string[] {
  if (!Array.isArray(value)) return [];
  return value.map((problem: unknown) => {
    if (typeof problem === "string") return problem;
    const { key, message } = problem as { key?: unknown; message?: unknown };
    return [key, message].filter(part => typeof part === "string").join(": ");
  });
}
