// Links to single events. The filters of the list stay in the address beside the event.
import { below } from "../base";
import { navigate, query } from "../router";

export interface Place {
  session: string;
  seq: number;
}

/** The event that an address names, if any. */
export function placeOf(params: URLSearchParams): Place | null {
  const session = params.get("session");
  const seq = Number(params.get("seq"));
  return session !== null && Number.isSafeInteger(seq) && seq > 0 ? { session, seq } : null;
}

/** The list as it is, with this event open; without, with none. */
export function addressOf(place: Place | null, params: URLSearchParams): string {
  const next = new URLSearchParams(params);
  next.delete("session");
  next.delete("seq");
  if (place) {
    next.set("session", place.session);
    next.set("seq", String(place.seq));
  }
  const text = next.toString();
  return text === "" ? "/events" : `/events?${text}`;
}

/** The shortest link to an event, for others. */
export function linkTo(place: Place): string {
  return new URL(below(addressOf(place, new URLSearchParams())), location.href).href;
}

/** Closes the open event. */
export function close(): void {
  navigate(addressOf(null, query.peek()), true);
}
