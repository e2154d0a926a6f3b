/**
 * What componentize-js leaves in a component's memory with each call, given back.
 *
 * Since 0.20 its engine frees no memory that the bindings take for the arguments of an import and
 * for an export's result (bytecodealliance/ComponentizeJS#319, #350): a pipeline grew by megabytes
 * a minute until it was out of memory. An import's arguments are dead when it returns, and an
 * export's result is when the next export is called, so that is where all of them are freed here.
 * What the host writes into the component is taken another way, and the bindings do free it.
 */

const BINDINGS = '] = $bindings;\n';
const EXPORT = /^async function export_[^\n]*\) \{\n/gm;

const HOLD = `
let ocelliHeld = [];
const ocelliRealloc = $realloc;
$realloc = (pointer, size, align, wanted) => {
  const taken = ocelliRealloc(pointer, size, align, wanted);
  // No bytes take some, too.
  ocelliHeld.push(taken);
  return taken;
};
function ocelliFree() {
  for (const taken of ocelliHeld) $dealloc(taken);
  ocelliHeld = [];
}
`;

/** The bindings of a component, which then free what they take. */
export function freeing(bindings) {
  const start = bindings.indexOf(BINDINGS);
  const exported = bindings.match(EXPORT)?.length ?? 0;
  if (start < 0 || !bindings.includes('$dealloc') || exported === 0) {
    throw new Error('these are not the bindings of the version that this SDK is tried with');
  }
  const end = start + BINDINGS.length;
  const freed = bindings.slice(end).replace(EXPORT, (head) => `${head}  ocelliFree();\n`);
  return bindings.slice(0, end) + HOLD + freed;
}
