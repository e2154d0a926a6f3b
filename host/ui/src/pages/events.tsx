/** what the pipelines saw, with pictures */
export default function EventsPage() {
  return <h1>Events</h1>;
}
