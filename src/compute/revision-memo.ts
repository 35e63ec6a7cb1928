import type { Reader } from "../model/store.ts";

/**
 * `make`, remembering its last result for each key for as long as the store's revision is the same: a list that is asked
 * for again and again between two writes is made once, and keeps its identity. One memo serves one store.
 * @param keysMax how many keys are remembered before all are forgotten
 */
export function revisionMemo<View>(
  make: (key: string, state: Reader) => View,
  keysMax = 256,
): (key: string, state: Reader) => View {
  const last = new Map<string, { readonly revision: number; readonly view: View }>();
  return (key, state) => {
    const known = last.get(key);
    if (known?.revision === state.revision) return known.view;
    const view = make(key, state);
    if (last.size >= keysMax) last.clear();
    last.set(key, { revision: state.revision, view });
    return view;
  };
}
