import { useState } from "preact/hooks";
import { path, request, said } from "../../api/client";
import { navigate } from "../../router";
import { mayOperate } from "../../state/me";
import { refreshSessions } from "../../state/sessions";
import { confirmed } from "../../ui/dialog";
import { toast } from "../../ui/toast";

/** What an operator may do to the session; nothing for others. */
export function Actions({ session }: { session: string }) {
  const [busy, setBusy] = useState(false);
  if (!mayOperate.value) return null;
  const run = async (what: string, done: string, work: () => Promise<unknown>) => {
    setBusy(true);
    try {
      await work();
      toast(done);
      await refreshSessions();
    } catch (error) {
      toast(`${what} failed: ${said(error)}`, { bad: true });
    }
    setBusy(false);
  };
  const where = (...rest: string[]) => path("sessions", session, ...rest);
  const restart = async () => {
    const yes = await confirmed({
      title: `Restart ${session}?`,
      text:
        "Its worker is replaced by a new one: results stop for a moment, and numbers of tracks " +
        "begin anew. Events are kept.",
      action: "Restart",
    });
    if (!yes) return;
    const post = () => request(where("restart"), { method: "POST" });
    await run("The restart", `${session} restarts.`, post);
  };
  const end = async () => {
    const yes = await confirmed({
      title: `End ${session}?`,
      text:
        "Its process ends, and no more events come from it. Its past events are kept. A camera " +
        "of the config returns when the host restarts.",
      action: "End session",
      danger: true,
    });
    if (!yes) return;
    await run("Ending it", `${session} has ended.`, async () => {
      await request(where(), { method: "DELETE", limitMs: 60_000 });
      navigate("/");
    });
  };
  return (
    <span class="actions">
      <button type="button" disabled={busy} onClick={() => void restart()}>
        Restart
      </button>
      <button type="button" class="danger" disabled={busy} onClick={() => void end()}>
        End
      </button>
    </span>
  );
}
