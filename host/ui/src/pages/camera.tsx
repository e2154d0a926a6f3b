/** live pictures, rates and latencies of one camera */
export default function CameraPage({ id }: { id: string }) {
  return <h1>{id}</h1>;
}
