/** a camera by its address or by discovery */
export default function AddPage() {
  return <h1>Add</h1>;
}
