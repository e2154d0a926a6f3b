import { effect } from "@preact/signals";
import { render } from "preact";
import { App } from "./app";
import { connect, disconnect } from "./state/live";
import { me } from "./state/me";
import { startSessions } from "./state/sessions";
import "./state/host";
import "./style/tokens.css";
import "./style/base.css";
import "./style/parts.css";

effect(() => {
  if (me.value) connect(me.value);
  else disconnect();
});
startSessions();

const page = document.getElementById("page");
if (page) render(<App />, page);
