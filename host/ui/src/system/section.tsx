import type { ComponentChildren } from "preact";
import { useEffect } from "preact/hooks";
import type { Part } from "../state/part";
import { Failure } from "../ui/failure";

interface SectionProps {
  title: string;
  /** Beside the title: how old, how many, a button. */
  aside?: ComponentChildren;
  wide?: boolean;
  children: ComponentChildren;
}

export function Section({ title, aside, wide, children }: SectionProps) {
  const id = title.toLowerCase().replace(/\W+/g, "-");
  return (
    <section class={wide ? "panel wide" : "panel"} aria-labelledby={id}>
      <div class="bar">
        <h2 id={id}>{title}</h2>
        {aside}
      </div>
      {children}
    </section>
  );
}

interface PartProps<T> {
  title: string;
  part: Part<T>;
  aside?: (value: T) => ComponentChildren;
  wide?: boolean;
  children: (value: T) => ComponentChildren;
}

/** A section of one answer of the host. It is not there if the host does not have that answer. */
export function PartSection<T>({ title, part, aside, wide = false, children }: PartProps<T>) {
  useEffect(() => part.keep(), [part]);
  const answer = part.answer.value;
  switch (answer.state) {
    case "absent":
      return null;
    case "loading":
      return (
        <Section title={title} wide={wide}>
          <p class="quiet">Loading …</p>
        </Section>
      );
    case "failed":
      return (
        <Section title={title} wide={wide}>
          <Failure
            what="The host does not tell this"
            error={answer.error}
            retry={() => void part.load()}
          />
        </Section>
      );
    case "ready":
      return (
        <Section title={title} wide={wide} aside={aside?.(answer.value)}>
          {children(answer.value)}
        </Section>
      );
  }
}
