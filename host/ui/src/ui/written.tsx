import type { Written } from "../state/config";
import { Paste } from "./paste";

/** What has become of a change of the config file. */
export function ConfigWritten({ written }: { written: Written }) {
  switch (written.state) {
    case "written":
      return <p role="status">Saved in the config file, its comments kept.</p>;
    case "paste":
      return (
        <div role="status">
          <p>
            {written.reason} To keep the change over a restart, paste this into the config, or let
            the host edit it with <code>[server] edit_config = true</code>.
          </p>
          <Paste label="For the config file" text={written.toml} />
        </div>
      );
    case "refused":
      return (
        <div class="failure" role="alert">
          <p>
            <strong>Not saved in the config.</strong> {written.error.message}{" "}
            <span class="quiet">({written.error.code})</span>
          </p>
          <p>
            What runs and what the config says may differ now. The page of deployments shows it as
            drift.
          </p>
        </div>
      );
  }
}
