import { mayAdmin, mayOperate } from "../state/me";
import { Audit } from "../system/audit";
import { ConfigInForce } from "../system/config";
import { Health } from "../system/health";
import { ModelList } from "../system/models";
import { Alerts } from "../system/alerts";
import { Processes } from "../system/processes";
import { Sinks } from "../system/sinks";
import { Store } from "../system/store";
import { Tokens } from "../system/tokens";
import { Empty } from "../ui/empty";
import "./system.css";

/** What the host is made of and how each part is. */
export default function SystemPage() {
  if (!mayOperate.value) {
    return (
      <Empty title="This page is for operators">
        <p>Your token is a viewer's. An admin of this host can make one of another role.</p>
      </Empty>
    );
  }
  return (
    <>
      <h1>System</h1>
      <div class="system">
        <Health />
        <Store />
        <Sinks />
        <Alerts />
        <ConfigInForce />
        <Processes />
        <ModelList />
        {mayAdmin.value && <Tokens />}
        {mayAdmin.value && <Audit />}
      </div>
    </>
  );
}
