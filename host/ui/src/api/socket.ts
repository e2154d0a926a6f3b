// The page's one WebSocket: it stays open, and is opened again after every end.
import type { HostSays } from "./types";

/** Milliseconds before the first new try, and at most; each try doubles them. */
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 10_000;
/** A ping after so long without a message; without one for twice as long, the network is gone. */
const QUIET_MS = 15_000;

/** What the socket tells its owner. */
interface SocketOwner {
  /** It is open: all that was subscribed to before must be asked for again. */
  opened(): void;
  /** It is closed; the next try comes at `retryAt` (of `Date.now()`). */
  closed(reason: string, retryAt: number): void;
  text(message: HostSays): void;
  binary(message: ArrayBuffer): void;
}

export class Socket {
  #socket: WebSocket | null = null;
  #wait = FIRST_WAIT_MS;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #pulse: ReturnType<typeof setInterval> | undefined;
  #heard = 0;
  #lastError = "";
  #wanted = false;

  constructor(
    readonly url: string,
    readonly owner: SocketOwner,
  ) {}

  start(): void {
    if (this.#wanted) return;
    this.#wanted = true;
    addEventListener("online", this.#now);
    this.#open();
  }

  stop(): void {
    this.#wanted = false;
    removeEventListener("online", this.#now);
    clearTimeout(this.#retry);
    clearInterval(this.#pulse);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(1000);
  }

  /** Sends a message; false if there is no connection: `opened` asks again. */
  send(message: object): boolean {
    if (this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify(message));
    return true;
  }

  /** Tries again without waiting any longer. */
  readonly #now = (): void => {
    if (!this.#wanted || this.#socket !== null) return;
    clearTimeout(this.#retry);
    this.#open();
  };

  retryNow(): void {
    this.#now();
  }

  #open(): void {
    const socket = new WebSocket(this.url, "ocelli.v1");
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    this.#heard = performance.now();
    this.#lastError = "";
    clearInterval(this.#pulse);
    this.#pulse = setInterval(() => this.#beat(socket), QUIET_MS);
    socket.onopen = () => {
      if (this.#socket !== socket) return;
      this.#wait = FIRST_WAIT_MS;
      this.#heard = performance.now();
      this.owner.opened();
    };
    socket.onmessage = event => {
      if (this.#socket !== socket) return;
      this.#heard = performance.now();
      if (event.data instanceof ArrayBuffer) this.owner.binary(event.data);
      else this.#text(String(event.data));
    };
    socket.onclose = event => this.#ended(socket, event.reason);
  }

  #text(text: string): void {
    const message = JSON.parse(text) as HostSays;
    // The host says why before it closes.
    if (message.type === "error") this.#lastError = message.message;
    this.owner.text(message);
  }

  #beat(socket: WebSocket): void {
    const quiet = performance.now() - this.#heard;
    if (quiet >= 2 * QUIET_MS) {
      socket.onclose = null;
      socket.close();
      this.#ended(socket, "the host has been silent");
    } else if (quiet >= QUIET_MS * 0.9) {
      this.send({ type: "ping" });
    }
  }

  #ended(socket: WebSocket, reason: string): void {
    if (this.#socket !== socket || !this.#wanted) return;
    this.#socket = null;
    clearInterval(this.#pulse);
    // Many pages do not come back at the same moment.
    const wait = this.#wait * (0.75 + Math.random() / 2);
    this.#wait = Math.min(this.#wait * 2, LONGEST_WAIT_MS);
    this.#retry = setTimeout(() => this.#open(), wait);
    this.owner.closed(this.#lastError || reason || "the host cannot be reached", Date.now() + wait);
  }
}
