import { bytes } from "../ui/time";

/** A share from which on a bar warns: that of the alert `memory`, unless the config has another. */
const HIGH = 0.9;

interface Props {
  /** What the bar is of, for screen readers. */
  name: string;
  used: number;
  /** null: unbounded, so there is no bar. */
  limit: number | null;
}

/** Bytes in use beside their limit, in words and as a bar. */
export function Amount({ name, used, limit }: Props) {
  if (limit === null || limit <= 0) return <span class="amount">{bytes(used)}</span>;
  return (
    <span class="amount">
      <span>
        {bytes(used)} <span class="quiet">of {bytes(limit)}</span>
      </span>
      <meter aria-label={name} min={0} max={limit} high={HIGH * limit} optimum={0} value={used} />
    </span>
  );
}
