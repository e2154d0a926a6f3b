/** areas of the picture, and the settings of a pipeline */
export default function ZonesPage({ id }: { id: string }) {
  return <h1>{id}</h1>;
}
