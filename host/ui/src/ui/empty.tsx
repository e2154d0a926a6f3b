import type { ComponentChildren } from "preact";

interface Props {
  title: string;
  /** What to do about it: sentences, a link, a command to copy. */
  children?: ComponentChildren;
}

/** Where there is nothing to show: says what would be here, and how it gets here. */
export function Empty({ title, children }: Props) {
  return (
    <section class="empty">
      <h2>{title}</h2>
      {children}
    </section>
  );
}
