import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { ApiError, said } from "../api/client";
import { navigate, route } from "../router";
import { ended, logIn, me } from "../state/me";
import "./login.css";

/**
 * Trades a token for a session of the browser. It takes the place of any page while the host does
 * not know its user, and leaves the address alone, so that the page goes on there.
 */
export default function LoginPage() {
  const token = useSignal("");
  const shown = useSignal(false);
  const busy = useSignal(false);
  const error = useSignal<unknown>(null);
  const known = me.value !== null;
  const here = route.value.page === "login";
  useEffect(() => {
    if (known && here) navigate("/", true);
  }, [known, here]);

  const submit = async (event: Event) => {
    event.preventDefault();
    if (busy.value) return;
    busy.value = true;
    error.value = null;
    try {
      await logIn(bare(token.value));
    } catch (reason) {
      error.value = reason;
      document.getElementById("token")?.focus();
    } finally {
      busy.value = false;
    }
  };
  const failed = error.value !== null;
  return (
    <form class="login panel" onSubmit={event => void submit(event)}>
      <h1>Log in to Ocelli</h1>
      {ended.value && !failed && (
        <p role="status">
          You were logged out: a login lasts 12 hours, and ends with its token. Log in to go on
          where you were.
        </p>
      )}
      <label for="token">Token</label>
      <input
        id="token"
        name="token"
        type={shown.value ? "text" : "password"}
        autocomplete="current-password"
        autocapitalize="off"
        spellcheck={false}
        required
        autofocus
        value={token.value}
        onInput={event => (token.value = event.currentTarget.value)}
        aria-invalid={failed}
        aria-describedby={failed ? "token-error token-help" : "token-help"}
      />
      {failed && (
        <p id="token-error" class="login-error" role="alert">
          {words(error.value)}
        </p>
      )}
      <label>
        <input
          type="checkbox"
          checked={shown.value}
          onChange={event => (shown.value = event.currentTarget.checked)}
        />
        Show the token
      </label>
      <button type="submit" class="primary" disabled={busy.value}>
        {busy.value ? "Logging in …" : "Log in"}
      </button>
      <p id="token-help" class="quiet">
        An admin of this host makes tokens, on the page System or with{" "}
        <code>ocelli token new NAME --role viewer</code>. The browser keeps a session, not the
        token.
      </p>
    </form>
  );
}

/** The token of what was pasted: some copy the whole header. */
function bare(text: string): string {
  return text.trim().replace(/^Bearer\s+/i, "");
}

function words(error: unknown): string {
  if (error instanceof ApiError && error.status === 401) {
    return "The host does not know this token: it has a typing error, has ended, or was revoked.";
  }
  return said(error);
}
