import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { whenUserGoes } from "../state/me";

interface Props {
  title: string;
  onClose: () => void;
  children: ComponentChildren;
}

/**
 * A native modal dialog: the browser holds the focus in it, Escape closes it, and the focus goes
 * back to what had it before.
 */
export function Dialog({ title, onClose, children }: Props) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const element = dialog.current;
    if (element === null) return;
    if (!element.open) element.showModal();
    // One that is only taken out of the page gives no focus back.
    return () => element.close();
  }, []);
  // The event comes later: by then one that is taken away has been answered.
  const closed = (event: Event) => {
    if (dialog.current === event.currentTarget) onClose();
  };
  return (
    <dialog ref={dialog} aria-label={title} onClose={closed}>
      <h2>{title}</h2>
      {children}
    </dialog>
  );
}

interface Question {
  title: string;
  /** What will happen, and whether it can be undone. */
  text: string;
  /** The verb on the button: "End session", not "OK". */
  action: string;
  danger?: boolean;
}

const asked = signal<(Question & { answer: (yes: boolean) => void }) | null>(null);

whenUserGoes(() => asked.value?.answer(false));

/** Asks before something that hurts; true if the user wants it. */
export function confirmed(question: Question): Promise<boolean> {
  asked.value?.answer(false);
  return new Promise(resolve => {
    asked.value = {
      ...question,
      answer: yes => {
        asked.value = null;
        resolve(yes);
      },
    };
  });
}

/** Where questions appear; once in the layout. */
export function Questions() {
  const question = asked.value;
  if (question === null) return null;
  return (
    <Dialog key={question.title} title={question.title} onClose={() => question.answer(false)}>
      <p>{question.text}</p>
      <div class="actions">
        <button type="button" autofocus onClick={() => question.answer(false)}>
          Cancel
        </button>
        <button
          type="button"
          class={question.danger ? "danger" : "primary"}
          onClick={() => question.answer(true)}
        >
          {question.action}
        </button>
      </div>
    </Dialog>
  );
}
