/** changes of a pipeline and its settings */
export default function DeploymentsPage({ id }: { id: string }) {
  return <h1>{id}</h1>;
}
