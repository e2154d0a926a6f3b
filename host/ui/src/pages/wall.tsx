import { sessions } from "../state/sessions";
import { Link } from "../ui/link";
import { Status } from "../ui/status";
import { pathOf } from "../router";

/** All cameras. */
export default function WallPage() {
  return (
    <>
      <h1>Cameras</h1>
      <ul class="wall">
        {[...sessions.value.values()].map(session => (
          <li key={session.id}>
            <Link href={pathOf("cameras", session.id)}>{session.id}</Link>
            <Status state={session.state} />
          </li>
        ))}
      </ul>
    </>
  );
}
