import { query, setQuery } from "../router";
import { sessions } from "../state/sessions";
import { known } from "../state/events";
import { type Filters, LAST, NONE, isEmpty, read } from "./filters";

const SPANS: Record<keyof typeof LAST, string> = {
  "1h": "last hour",
  "24h": "last 24 hours",
  "7d": "last 7 days",
};

/** The filters. Each is in the address at once; the list follows the address. */
export function FilterBar() {
  const filters = read(query.value);
  const names = [...sessions.value.keys()];
  const { camera } = filters;
  // An ended session is not listed, and still has events.
  if (camera !== null && !names.includes(camera)) names.push(camera);
  return (
    <search>
      <form
        class="event-filters"
        aria-label="Filter events"
        onSubmit={event => event.preventDefault()}
      >
        <label>
          Camera
          <select
            value={camera ?? ""}
            onChange={event => setQuery({ camera: event.currentTarget.value })}
          >
            <option value="">all</option>
            {names.map(name => (
              <option key={name} value={name}>
                {name}
              </option>
            ))}
          </select>
        </label>
        <Suggested name="kind" title="Kind" filters={filters} values={known.kinds.value} />
        <Suggested name="label" title="Label" filters={filters} values={known.labels.value} />
        <Suggested name="zone" title="Zone" filters={filters} values={known.zones.value} />
        <Time filters={filters} />
        {!isEmpty(filters) && (
          <button type="button" onClick={() => setQuery({ ...NONE, between: null })}>
            Clear filters
          </button>
        )}
      </form>
    </search>
  );
}

interface SuggestedProps {
  name: "kind" | "label" | "zone";
  title: string;
  filters: Filters;
  values: readonly string[];
}

/** Free text, with what was seen so far as suggestions. */
function Suggested({ name, title, filters, values }: SuggestedProps) {
  return (
    <label>
      {title}
      <input
        type="search"
        name={name}
        list={`known-${name}`}
        autocomplete="off"
        placeholder="all"
        value={filters[name] ?? ""}
        onChange={event => setQuery({ [name]: event.currentTarget.value.trim() })}
      />
      <datalist id={`known-${name}`}>
        {values.map(value => (
          <option key={value} value={value} />
        ))}
      </datalist>
    </label>
  );
}

function Time({ filters }: { filters: Filters }) {
  const { last, from, to } = filters;
  const between = query.value.has("between") || from !== null || to !== null;
  const choose = (value: string) => {
    const chosen = value in LAST ? value : null;
    const open = value === "between" ? "1" : null;
    setQuery({ last: chosen, from: null, to: null, between: open });
  };
  return (
    <>
      <label>
        Time
        <select
          value={last ?? (between ? "between" : "")}
          onChange={event => choose(event.currentTarget.value)}
        >
          <option value="">any</option>
          {Object.entries(SPANS).map(([value, text]) => (
            <option key={value} value={value}>
              {text}
            </option>
          ))}
          <option value="between">between …</option>
        </select>
      </label>
      {between && last === null && (
        <>
          <Moment name="from" title="From" value={from} />
          <Moment name="to" title="To" value={to} />
        </>
      )}
    </>
  );
}

function Moment({ name, title, value }: { name: string; title: string; value: string | null }) {
  return (
    <label class="moment">
      {title}
      <input
        type="datetime-local"
        step="1"
        name={name}
        value={value === null ? "" : localInput(value)}
        onChange={event => {
          const at = new Date(event.currentTarget.value);
          setQuery({ [name]: Number.isNaN(at.getTime()) ? null : at.toISOString(), between: "1" });
        }}
      />
    </label>
  );
}

/** A time as an input of local time has it. */
function localInput(time: string): string {
  const at = new Date(time);
  return new Date(at.getTime() - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
}
