// Who uses the page, and what it may do.
import { computed, effect, signal, untracked } from "@preact/signals";
import { ApiError, path, request, whenUnauthorized } from "../api/client";
import type { Me } from "../api/types";

/** undefined: not asked yet; null: nobody, so the login page is shown. */
export const me = signal<Me | null | undefined>(undefined);

/** Restart, end, deploy, roll back, command, probe. */
export const mayOperate = computed(() => me.value?.role === "operator" || mayAdmin.value);
/** Tokens, audit log, and the config. */
export const mayAdmin = computed(() => me.value?.role === "admin");

/** Whether the host no longer knows a user that it knew: the login or its token has ended. */
export const ended = signal(false);

const forgetting: (() => void)[] = [];
let known = false;
/** How many users have gone. */
let gone = 0;

/** Calls `forget` when the user goes: whoever comes next sees nothing of theirs. */
export function whenUserGoes(forget: () => void): void {
  forgetting.push(forget);
}

/** Whether the user of now is still there: an answer that comes later is for nobody else. */
export function stillThere(): () => boolean {
  const asked = gone;
  return () => gone === asked;
}

effect(() => {
  const before = known;
  known = Boolean(me.value);
  if (!before || known) return;
  gone += 1;
  untracked(() => forgetting.forEach(forget => forget()));
});

/** When the browser was given its login. */
let loginAt = 0;

/** The browser has a login from now on: what was asked without it is refused, and says nothing. */
export function hasLogin(): void {
  loginAt = performance.now();
}

whenUnauthorized(begun => {
  if (begun < loginAt) return;
  if (me.peek()) ended.value = true;
  me.value = null;
});

/** Asks the host who this is. An error other than "nobody" is the caller's. */
export async function loadMe(): Promise<void> {
  try {
    me.value = await request<Me>(path("me"));
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (error.status === 401) {
      me.value = null;
    } else if (import.meta.env.DEV && error.code === "unknown_path") {
      // `npm run dev` also works with a host that knows no login.
      me.value = { name: "operator", role: "admin", sessions: null, login: false };
    } else {
      throw error;
    }
  }
}

export async function logIn(token: string): Promise<void> {
  await request<void>(path("login"), { method: "POST", body: { token } });
  hasLogin();
  await loadMe();
  if (!me.value) {
    throw new Error(
      "The browser kept no cookie of this host. Allow cookies for it, and try again.",
    );
  }
  ended.value = false;
}

export async function logOut(): Promise<void> {
  await request<void>(path("logout"), { method: "POST" });
  me.value = null;
  ended.value = false;
}
