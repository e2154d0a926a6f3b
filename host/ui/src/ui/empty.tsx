import type { ComponentChildren } from "preact";
import { Link } from "./link";

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

/** Where a page of a camera is asked for that the user cannot see. */
export function NoCamera({ id }: { id: string }) {
  return (
    <Empty title={`There is no camera “${id}”`}>
      <p>
        It has ended, was never made, or your token may not see it. Its past events may still be
        among <Link href={`/events?camera=${encodeURIComponent(id)}`}>the events</Link>.
      </p>
      <p>
        <Link class="button" href="/">
          All cameras
        </Link>
      </p>
    </Empty>
  );
}
