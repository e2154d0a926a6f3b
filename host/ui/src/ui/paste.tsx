import { useRef } from "preact/hooks";
import { toast } from "./toast";

/** Text to copy. Pages on plain http have no clipboard: there the text is selected and copied. */
export function Paste({ label, text }: { label: string; text: string }) {
  const area = useRef<HTMLTextAreaElement>(null);
  const copy = async () => {
    area.current?.select();
    try {
      // Absent on plain http, whatever the types say.
      const clipboard = navigator.clipboard as Clipboard | undefined;
      if (clipboard) await clipboard.writeText(text);
      else if (!document.execCommand("copy")) throw new Error("refused");
      toast("Copied.");
    } catch {
      toast("The browser does not copy it: it is selected, press Ctrl+C.");
    }
  };
  return (
    <div class="paste">
      <label>
        {label}
        <textarea
          ref={area}
          readOnly
          spellcheck={false}
          rows={Math.min(24, text.split("\n").length + 1)}
          value={text}
        />
      </label>
      <button type="button" onClick={() => void copy()}>
        Copy
      </button>
    </div>
  );
}
