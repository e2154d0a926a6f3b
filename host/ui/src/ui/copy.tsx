import { useSignal } from "@preact/signals";
import { useId, useRef } from "preact/hooks";

interface Props {
  label: string;
  text: string;
}

/** A text to take away. On plain http there is no clipboard: it is selected, for Ctrl+C. */
export function Copy({ label, text }: Props) {
  const field = useRef<HTMLInputElement>(null);
  const said = useSignal("");
  const id = useId();
  const copy = async () => {
    field.current?.select();
    try {
      await navigator.clipboard.writeText(text);
      said.value = "Copied.";
    } catch {
      said.value = "Selected: copy it with Ctrl+C.";
    }
  };
  return (
    <div class="copy">
      <label for={id}>{label}</label>
      <input
        ref={field}
        id={id}
        readOnly
        value={text}
        onFocus={event => event.currentTarget.select()}
      />
      <button type="button" onClick={() => void copy()}>
        Copy
      </button>
      <span class="quiet" role="status">
        {said.value}
      </span>
    </div>
  );
}
