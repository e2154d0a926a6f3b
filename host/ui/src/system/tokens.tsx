import { useSignal } from "@preact/signals";
import { ApiError } from "../api/client";
import type { NewToken, Token } from "../api/types";
import { me } from "../state/me";
import { sessions } from "../state/sessions";
import { made, makeToken, revokeToken, tokens } from "../state/system";
import { Copy } from "../ui/copy";
import { Dialog, confirmed } from "../ui/dialog";
import { Failure } from "../ui/failure";
import { type Column, Table } from "../ui/table";
import { local } from "../ui/time";
import { toast } from "../ui/toast";
import { PartSection } from "./section";

const ROLES = {
  viewer: "looks at cameras and events",
  operator: "also deploys, restarts and ends sessions",
  admin: "also changes tokens and the config",
} as const;

/** The tokens, for admins: make one, revoke one. */
export function Tokens() {
  const making = useSignal(false);
  const refused = useSignal<unknown>(null);
  const revoke = async (token: Token) => {
    refused.value = null;
    const own = me.value?.login && me.value.name === token.name;
    const agreed = await confirmed({
      title: `Revoke the token ${token.name}?`,
      text:
        (own ? "You are logged in with it, and will be logged out. " : "") +
        "Whoever uses it is cut off at once. This cannot be undone; a new token has another text.",
      action: "Revoke",
      danger: true,
    });
    if (!agreed) return;
    try {
      await revokeToken(token.name);
      toast(`The token ${token.name} is revoked.`);
    } catch (error) {
      refused.value = error;
    }
  };
  const had = () => {
    made.value = null;
    making.value = false;
  };
  const columns: Column<Token>[] = [
    { title: "Name", cell: token => token.name },
    { title: "Role", cell: token => token.role },
    { title: "Cameras", cell: token => token.sessions?.join(", ") ?? "all" },
    { title: "Expires", cell: expiry },
    { title: "Browsers", cell: token => token.logins, numeric: true },
    {
      title: "Change",
      cell: token => (
        <button
          type="button"
          class="danger"
          aria-label={`Revoke ${token.name}`}
          onClick={() => void revoke(token)}
        >
          Revoke …
        </button>
      ),
    },
  ];
  return (
    <PartSection
      title="Tokens"
      part={tokens}
      wide
      aside={() => (
        <button type="button" onClick={() => (making.value = true)}>
          Make a token …
        </button>
      )}
    >
      {all => (
        <>
          {all.tokens.length === 0 ? (
            <p>
              This host has no tokens, so everyone on this machine can do everything. From the first
              token on, everyone needs one: make it for an admin.
            </p>
          ) : (
            <Table
              caption="Tokens of this host"
              columns={columns}
              rows={all.tokens}
              keyOf={token => token.name}
            />
          )}
          {refused.value !== null && <Refused error={refused.value} />}
          {made.value ? (
            <Made token={made.value} onClose={had} />
          ) : (
            making.value && (
              <NewTokenForm
                first={all.tokens.length === 0}
                onClose={() => (making.value = false)}
              />
            )
          )}
        </>
      )}
    </PartSection>
  );
}

function expiry(token: Token) {
  if (token.expires === null) return "never";
  const time = <time dateTime={token.expires}>{local(token.expires)}</time>;
  return token.expired ? <>expired {time}</> : time;
}

/** A change that the host does not make; with what to paste where it may not write the file. */
function Refused({ error }: { error: unknown }) {
  const toml = error instanceof ApiError ? error.problem["toml"] : undefined;
  if (typeof toml !== "string") return <Failure what="Nothing was changed" error={error} />;
  return (
    <div class="failure" role="alert">
      <p>
        <strong>The host may not write its config.</strong> Change it yourself, as below. With{" "}
        <code>edit_config = true</code> in <code>[server]</code> the host does it.
      </p>
      <pre tabIndex={0}>{toml}</pre>
    </div>
  );
}

interface FormProps {
  /** Whether the host has none yet: from then on everyone needs one, so it is an admin's. */
  first: boolean;
  onClose: () => void;
}

function NewTokenForm({ first, onClose }: FormProps) {
  const role = useSignal<keyof typeof ROLES>(first ? "admin" : "viewer");
  const some = useSignal(false);
  const error = useSignal<unknown>(null);
  const busy = useSignal(false);
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget as HTMLFormElement);
    const expires = new Date(String(form.get("expires")));
    busy.value = true;
    error.value = null;
    try {
      await makeToken({
        name: String(form.get("name")).trim(),
        role: role.value,
        ...(some.value && role.value === "viewer"
          ? { sessions: form.getAll("session").map(String) }
          : {}),
        ...(Number.isNaN(expires.getTime()) ? {} : { expires: expires.toISOString() }),
      });
      onClose();
    } catch (reason) {
      error.value = reason;
    } finally {
      busy.value = false;
    }
  };
  return (
    <Dialog title="Make a token" onClose={onClose}>
      <form class="token-form" onSubmit={event => void submit(event)}>
        <label>
          Name: whose it is, for the audit log
          <input name="name" required maxLength={200} autocomplete="off" autofocus />
        </label>
        <fieldset>
          <legend>Role</legend>
          {(Object.keys(ROLES) as (keyof typeof ROLES)[]).map(name => (
            <label key={name}>
              <input
                type="radio"
                name="role"
                value={name}
                checked={role.value === name}
                disabled={first && name !== "admin"}
                onChange={() => (role.value = name)}
              />
              <span>
                {name} <span class="quiet">{ROLES[name]}</span>
              </span>
            </label>
          ))}
        </fieldset>
        {role.value === "viewer" && (
          <fieldset>
            <legend>Cameras</legend>
            <label>
              <input
                type="checkbox"
                checked={some.value}
                onChange={event => (some.value = event.currentTarget.checked)}
              />
              Only some of them
            </label>
            {some.value &&
              [...sessions.value.keys()].map(name => (
                <label key={name}>
                  <input type="checkbox" name="session" value={name} />
                  {name}
                </label>
              ))}
          </fieldset>
        )}
        <label>
          Expires (empty: never)
          <input type="datetime-local" name="expires" />
        </label>
        {error.value !== null && <Refused error={error.value} />}
        <div class="actions">
          <button type="button" onClick={onClose}>
            Cancel
          </button>
          <button type="submit" class="primary" disabled={busy.value}>
            Make the token
          </button>
        </div>
      </form>
    </Dialog>
  );
}

function Made({ token, onClose }: { token: NewToken; onClose: () => void }) {
  return (
    <Dialog title={`The token ${token.name}`} onClose={onClose}>
      <p>
        Copy it now: it is shown this once, and the host keeps only its hash. Whoever has it acts
        with its role.
      </p>
      <Copy label="Token" text={token.token} />
      <div class="actions">
        <button type="button" class="primary" onClick={onClose}>
          I have it
        </button>
      </div>
    </Dialog>
  );
}
