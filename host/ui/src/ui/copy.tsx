import { useSignal } from "@preact/signals";
import { useId, useRef } from "preact/hooks";

interface Props {
  label: string;
  text: string;
}

/** Lines of a long text that are seen at once. */
const MOST_ROWS = 24;

/** A text to take away. On plain http there is no clipboard: it is selected, for Ctrl+C. */
export function Copy({ label, text }: Props) {
  const field = useRef<HTMLInputElement & HTMLTextAreaElement>(null);
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
  const lines = text.trimEnd().split("\n").length;
  const common = { id, readOnly: true, value: text, onFocus: () => field.current?.select() };
  return (
    <div class="copy">
      <label for={id}>{label}</label>
      {lines > 1 ? (
        <textarea ref={field} {...common} rows={Math.min(lines, MOST_ROWS)} spellcheck={false} />
      ) : (
        <input ref={field} {...common} />
      )}
      <button type="button" onClick={() => void copy()}>
        Copy
      </button>
      <span class="quiet" role="status">
        {said.value}
      </span>
    </div>
  );
}
