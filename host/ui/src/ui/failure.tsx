import { ApiError, said } from "../api/client";

interface Props {
  error: unknown;
  /** What failed, as in "The events cannot be shown". */
  what: string;
  retry?: () => void;
}

/** An error with its reason, its code, and a button where trying again makes sense. */
export function Failure({ error, what, retry }: Props) {
  const code = error instanceof ApiError && error.status > 0 ? ` (${error.code})` : "";
  return (
    <div class="failure" role="alert">
      <p>
        <strong>{what}.</strong> {said(error)}
        <span class="quiet">{code}</span>
      </p>
      {retry && (
        <button type="button" onClick={retry}>
          Try again
        </button>
      )}
    </div>
  );
}
