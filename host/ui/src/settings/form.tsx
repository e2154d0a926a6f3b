// A form of a JSON Schema: native fields, the host's messages beside each.
import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useId } from "preact/hooks";
import type { Draft } from "./draft";
import { type Json, type Path, at, isObject, place } from "./json";
import { type Fault, type Field, type Schema, blank, faultsAt, field } from "./schema";
import "./form.css";

export interface FormProps {
  draft: Draft;
  /** The whole schema, in which references lead. */
  root: Schema;
  faults: readonly Fault[];
  /** Places that are edited elsewhere: drawings. */
  skip?: readonly string[];
  disabled?: boolean;
}

interface FieldProps extends FormProps {
  schema: Schema;
  path: Path;
  name: string;
  required: boolean;
}

/** The members of the settings, each as a field. */
export function SettingsForm(props: FormProps & { schema: Schema; path: Path }) {
  const { schema, root, path } = props;
  const it = field(schema, root);
  if (it.kind !== "object") {
    return <SchemaField {...props} name={String(path.at(-1) ?? "settings")} required />;
  }
  return (
    <div class="settings">
      {it.members.map(member => (
        <SchemaField
          {...props}
          key={member.name}
          schema={member.schema}
          path={[...path, member.name]}
          name={member.name}
          required={member.required}
        />
      ))}
      <Unknown {...props} known={it.members.map(member => member.name)} />
    </div>
  );
}

/** Settings that the schema does not name: shown, so that nothing is saved unseen. */
function Unknown(props: FormProps & { path: Path; known: readonly string[] }) {
  const { draft, path, known } = props;
  const value = at(draft.value.value, path);
  const others = isObject(value) ? Object.keys(value).filter(key => !known.includes(key)) : [];
  return (
    <>
      {others.map(name => (
        <SchemaField
          {...props}
          key={name}
          schema={{}}
          path={[...path, name]}
          name={name}
          required={false}
        />
      ))}
    </>
  );
}

function SchemaField(props: FieldProps) {
  const { schema, root, path, name, required, draft, faults, skip = [], disabled } = props;
  const id = useId();
  if (skip.includes(place(path))) return null;
  const it = field(schema, root);
  const value = at(draft.value.value, path);
  const nested = it.kind === "object" || it.kind === "list";
  const messages = faultsAt(faults, path, !nested);
  const label = it.title ?? name.replace(/_/g, " ");
  const unset = value !== undefined && !required && !disabled && (
    <button
      type="button"
      class="plain unset"
      title="Back to the pipeline's default"
      onClick={() => draft.set(path, undefined)}
    >
      Default<span class="hidden"> for {label}</span>
    </button>
  );
  const notes = (
    <>
      {it.description !== undefined && (
        <span class="quiet note" id={`${id}-note`}>
          {it.description} {fallback(it, value)}
        </span>
      )}
      {messages.length > 0 && (
        <span class="fault" id={`${id}-fault`} role="alert">
          {messages.join("; ")}
        </span>
      )}
    </>
  );
  if (nested) {
    return (
      <fieldset class="nested" disabled={disabled}>
        <legend>
          {label} {unset}
        </legend>
        {notes}
        {it.kind === "list" ? <ListField {...props} it={it} /> : <SettingsForm {...props} />}
      </fieldset>
    );
  }
  const described = [
    it.description !== undefined ? `${id}-note` : "",
    messages.length > 0 ? `${id}-fault` : "",
  ];
  const common: Common = {
    id,
    disabled,
    "aria-invalid": messages.length > 0,
    "aria-describedby": described.join(" ").trim() || undefined,
  };
  return (
    <div class="field">
      <span class="label">
        <label for={id}>{label}</label>
        {unset}
      </span>
      <Input {...props} it={it} common={common} value={value} />
      {notes}
    </div>
  );
}

interface Common {
  id: string;
  disabled: boolean | undefined;
  "aria-invalid": boolean;
  "aria-describedby": string | undefined;
}

function fallback(it: Field, value: Json | undefined): string {
  if (value !== undefined || it.default === undefined || it.default === null) return "";
  const shown = typeof it.default === "string" ? it.default : JSON.stringify(it.default);
  return shown === "[]" || shown === "" ? "" : `Default: ${shown}.`;
}

type InputProps = FieldProps & { it: Field; common: Common; value: Json | undefined };

function Input(props: InputProps): ComponentChildren {
  const { it, common, value, path, draft } = props;
  const key = place(path);
  switch (it.kind) {
    case "boolean":
      return (
        <input
          {...common}
          type="checkbox"
          checked={(value ?? it.default) === true}
          onChange={event => draft.set(path, event.currentTarget.checked)}
        />
      );
    case "number": {
      const usual = typeof it.default === "number" ? String(it.default) : "";
      return (
        <input
          {...common}
          type="number"
          step={it.whole ? 1 : "any"}
          min={it.least ?? it.above}
          max={it.most ?? it.below}
          placeholder={usual || (it.nullable ? "none" : "")}
          value={typeof value === "number" ? value : ""}
          onInput={event => {
            const { valueAsNumber, value: text } = event.currentTarget;
            // An empty field is the default; what is no number is left to the browser to mark.
            if (text === "") draft.set(path, undefined, key);
            else if (Number.isFinite(valueAsNumber)) draft.set(path, valueAsNumber, key);
          }}
        />
      );
    }
    case "text":
      return (
        <input
          {...common}
          type="text"
          placeholder={typeof it.default === "string" ? it.default : ""}
          value={typeof value === "string" ? value : ""}
          onInput={event => draft.set(path, event.currentTarget.value, key)}
        />
      );
    case "choice":
      return <ChoiceInput {...props} options={it.options} />;
    case "choices":
      return <ChoicesInput {...props} options={it.options} />;
    case "tuple":
      return <TupleInput {...props} items={it.items} />;
    default:
      return <JsonInput {...props} />;
  }
}

function ChoiceInput({ it, common, value, path, draft, options }: InputProps & Options<Json>) {
  const shown = value === undefined ? "" : JSON.stringify(value);
  return (
    <select
      {...common}
      value={shown}
      onChange={event => {
        const text = event.currentTarget.value;
        draft.set(path, text === "" ? undefined : (JSON.parse(text) as Json));
      }}
    >
      <option value="">{it.default == null ? "default" : `default: ${String(it.default)}`}</option>
      {it.nullable && <option value="null">none</option>}
      {options.map(option => (
        <option key={String(option)} value={JSON.stringify(option)}>
          {String(option)}
        </option>
      ))}
    </select>
  );
}

interface Options<T> {
  options: readonly T[];
}

/** Some of many: those chosen as buttons that take them away, the others in a list. */
function ChoicesInput({ common, value, path, draft, options, name }: InputProps & Options<string>) {
  const chosen = Array.isArray(value) ? value.map(String) : [];
  const put = (next: string[]) => draft.set(path, next);
  return (
    <span class="choices">
      {chosen.map((one, index) => (
        <button
          key={one}
          type="button"
          class="chip"
          disabled={common.disabled}
          aria-label={`Take ${one} away`}
          onClick={() => put(chosen.filter((_, i) => i !== index))}
        >
          {one} <span aria-hidden="true">×</span>
        </button>
      ))}
      <select
        {...common}
        value=""
        onChange={event => {
          const { value: next } = event.currentTarget;
          if (next !== "") put([...chosen, next]);
          event.currentTarget.value = "";
        }}
      >
        <option value="">{chosen.length === 0 ? `all; add to ${name} …` : "add …"}</option>
        {options
          .filter(option => !chosen.includes(option))
          .map(option => (
            <option key={option} value={option}>
              {option}
            </option>
          ))}
      </select>
    </span>
  );
}

/** A few values of fixed places, such as width and height. */
function TupleInput(props: InputProps & { items: readonly Schema[] }) {
  const { it, common, value, path, draft, items, name } = props;
  const usual = Array.isArray(it.default) ? it.default : [];
  const given = Array.isArray(value) ? value : null;
  return (
    <span class="tuple">
      {items.map((_, index) => (
        <input
          key={index}
          {...common}
          id={index === 0 ? common.id : undefined}
          aria-label={index === 0 ? undefined : `${name}, value ${index + 1}`}
          type="number"
          step="any"
          placeholder={String(usual[index] ?? "")}
          value={typeof given?.[index] === "number" ? given[index] : ""}
          onInput={event => {
            const number = event.currentTarget.valueAsNumber;
            if (!Number.isFinite(number)) return;
            const whole = items.map((_, i) => given?.[i] ?? usual[i] ?? 0);
            draft.set(path, [...whole.slice(0, index), number, ...whole.slice(index + 1)], name);
          }}
        />
      ))}
    </span>
  );
}

/** What has no field of its own, as JSON. */
function JsonInput({ common, value, path, draft }: InputProps) {
  const text = useSignal<string | null>(null);
  const wrong = useSignal(false);
  return (
    <>
      <textarea
        {...common}
        rows={3}
        spellcheck={false}
        value={text.value ?? (value === undefined ? "" : JSON.stringify(value, null, 2))}
        onInput={event => {
          text.value = event.currentTarget.value;
          if (text.value.trim() === "") {
            wrong.value = false;
            return draft.set(path, undefined, place(path));
          }
          try {
            draft.set(path, JSON.parse(text.value) as Json, place(path));
            wrong.value = false;
          } catch {
            wrong.value = true;
          }
        }}
        onBlur={() => {
          if (!wrong.value) text.value = null;
        }}
      />
      {wrong.value && <span class="fault">This is not JSON yet; the last that was is kept.</span>}
    </>
  );
}

/** A list whose elements have fields of their own. */
function ListField(props: FieldProps & { it: Extract<Field, { kind: "list" }> }) {
  const { it, path, draft, root, disabled, name } = props;
  const value = at(draft.value.value, path);
  const list = Array.isArray(value) ? value : [];
  const add = () => draft.set([...path, list.length], blank(it.item, root));
  return (
    <div class="list">
      {list.map((_, index) => (
        <fieldset key={index} class="element">
          <legend>{index + 1}</legend>
          <SettingsForm {...props} schema={it.item} path={[...path, index]} />
          <button
            type="button"
            class="plain"
            disabled={disabled}
            onClick={() => draft.set([...path, index], undefined)}
          >
            Delete
            <span class="hidden">
              {" "}
              {name} {index + 1}
            </span>
          </button>
        </fieldset>
      ))}
      {!disabled && list.length < it.most && (
        <button type="button" onClick={add}>
          Add<span class="hidden"> to {name}</span>
        </button>
      )}
    </div>
  );
}
