import type { ComponentChildren, JSX } from "preact";
import { below } from "../base";
import { navigate } from "../router";

type Props = Omit<JSX.IntrinsicElements["a"], "href" | "onClick"> & {
  href: string;
  children: ComponentChildren;
};

/** A link to a page of this application: no reload, but all that a link can (new tab, copy). */
export function Link({ href, children, ...rest }: Props) {
  const follow = (event: MouseEvent) => {
    if (event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) {
      return;
    }
    event.preventDefault();
    navigate(href);
  };
  return (
    <a {...rest} href={below(href)} onClick={follow}>
      {children}
    </a>
  );
}
