// A camera's source out of what a person types.

export interface Typed {
  url: string;
  user: string;
  password: string;
}

/** The URL with user and password in it, or what is wrong. */
export function sourceOf({ url, user, password }: Typed): { source: string } | { fault: string } {
  const text = url.trim();
  if (text === "") return { fault: "Type the camera's address: rtsp://HOST/PATH." };
  if (text.startsWith("file:")) {
    if (user || password) return { fault: "A file has no user and password: leave them empty." };
    return { source: text };
  }
  const found = /^(rtsps?):\/\/([^/?#]*)(.*)$/i.exec(text);
  if (found === null) {
    const scheme = /^([a-z][a-z0-9+.-]*):/i.exec(text)?.[1];
    return {
      fault: scheme
        ? `The host reads rtsp://, rtsps:// and file:, not ${scheme}:. Cameras name their RTSP ` +
          "address in their manual."
        : "The address begins with rtsp://.",
    };
  }
  const [, scheme = "", authority = "", rest = ""] = found;
  const host = authority.slice(authority.lastIndexOf("@") + 1);
  if (host === "") return { fault: "The address has no host: rtsp://HOST/PATH." };
  if (user === "" && password === "") return { source: text };
  if (user === "") return { fault: "A password needs a user." };
  const login = `${encoded(user)}:${encoded(password)}`;
  return { source: `${scheme.toLowerCase()}://${login}@${host}${rest}` };
}

/** The same for a smaller stream of the camera, with its login; an empty source: there is none. */
export function substreamOf(typed: Typed, url: string): { source: string } | { fault: string } {
  if (url.trim() === "") return { source: "" };
  const made = sourceOf({ ...typed, url });
  return "fault" in made ? { fault: `Substream: ${made.fault}` } : made;
}

/** Also what `encodeURIComponent` leaves and a URL's user may not have. */
function encoded(text: string): string {
  return encodeURIComponent(text).replace(
    /[!'()*]/g,
    letter => `%${letter.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

/** A user and password that are in the URL, to be put into fields of their own. */
export function parted(url: string): Typed {
  const found = /^(rtsps?:\/\/)([^/?#]*)@(.*)$/i.exec(url.trim());
  if (found === null) return { url, user: "", password: "" };
  const [, scheme = "", login = "", rest = ""] = found;
  const [user = "", ...password] = login.split(":");
  return { url: scheme + rest, user: decoded(user), password: decoded(password.join(":")) };
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Why a name cannot be a camera's; null: it can. */
export function nameFault(name: string, taken: Iterable<string>): string | null {
  if (name === "") return "Give the camera a name.";
  if (name !== name.trim()) return "The name has blanks at its ends.";
  if (/\p{Cc}/u.test(name)) return "The name has characters that cannot be shown.";
  if (new TextEncoder().encode(name).length > 200) return "The name has more than 200 bytes.";
  if ([...taken].includes(name)) return `There is a camera ${name} already.`;
  return null;
}
