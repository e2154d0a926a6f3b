import { useEffect, useRef, useState } from "preact/hooks";
import type { Pictures } from "../api/types";
import { query } from "../router";
import type { Mode } from "./joiner";
import { RUNG_TITLES, forcedRung } from "./ladder";
import { Player } from "./player";
import "./view.css";

interface Props {
  session: string;
  pictures: Pictures;
  mode: Mode;
  /** Whose picture this is, for screen readers. */
  label: string;
  /** Gives the player to the parent, which shows more of it. */
  onPlayer?: (player: Player | null) => void;
}

/** A camera's pictures with boxes, and the rung by which they come. */
export function PlayerView({ session, pictures, mode, label, onPlayer }: Props) {
  const parent = useRef<HTMLDivElement>(null);
  const [player, setPlayer] = useState<Player | null>(null);
  const forced = forcedRung(query.value);
  useEffect(() => {
    if (parent.current === null) return;
    const made = new Player(session, parent.current, { pictures, mode, boxes: true, forced });
    setPlayer(made);
    onPlayer?.(made);
    return () => {
      made.close();
      onPlayer?.(null);
    };
    // `pictures` and `mode` change the player below; another session or rung makes another.
  }, [session, forced]);
  useEffect(() => player?.setPictures(pictures), [player, pictures]);
  useEffect(() => player?.setMode(mode), [player, mode]);
  return (
    <div class="player">
      <div class="player-surface" ref={parent} role="img" aria-label={label} />
      {player && <Notes player={player} />}
    </div>
  );
}

function Notes({ player }: { player: Player }) {
  const { rung, why, refused } = player.state.value;
  return (
    <p class="player-notes">
      {refused !== null && <span class="player-refused">{refused}</span>}
      {rung !== null && why !== "" && (
        <span title={why}>
          {RUNG_TITLES[rung]}: {why}
        </span>
      )}
      {player.slow.value && <span>pictures left out: this page or its network is too slow</span>}
    </p>
  );
}
