/**
 * Views: AWS's own output structures, made from records. A record is frozen and keeps its identity until it is written
 * again, so a view that is made once per set of records keeps its identity too, and what hangs on that (the gateway's
 * rendered XML) is made once as well.
 *
 *   const vpcView = memoView((vpc: VpcRecord, tags: TagsRecord | undefined): Vpc => ({ … }));
 *   vpcView(state.get(vpcs, id)!, state.get(tags, id));   // the same object until either record changes
 */

/** What a view is made from, after its first record: records, lists of records, or plain values. */
export type ViewDependency = object | string | number | boolean | undefined;

/** Equal for a view: the same value or record, or lists of the same records in the same order. */
function unchanged(before: ViewDependency, now: ViewDependency): boolean {
  if (before === now) return true;
  if (!Array.isArray(before) || !Array.isArray(now) || before.length !== now.length) return false;
  for (let i = 0; i < before.length; i++) if (before[i] !== now[i]) return false;
  return true;
}

/**
 * `make`, remembering its last result for each `key` record (weakly: a replaced record takes its view with it). It is
 * made anew only when one of the other arguments differs; lists are compared by their elements. `make` must be pure,
 * and the view must not be changed by whoever gets it.
 */
export function memoView<Key extends object, Deps extends readonly ViewDependency[], View extends object>(
  make: (key: Key, ...deps: Deps) => View,
): (key: Key, ...deps: Deps) => View {
  const last = new WeakMap<Key, { readonly deps: Deps; readonly view: View }>();
  return (key, ...deps) => {
    const entry = last.get(key);
    if (entry && entry.deps.length === deps.length && entry.deps.every((dep, i) => unchanged(dep, deps[i])))
      return entry.view;
    // Frozen, which is how the encoder knows that it may keep the view's XML.
    const view = Object.freeze(make(key, ...deps));
    last.set(key, { deps, view });
    return view;
  };
}
