/**
 * Draws the names of the filters that an operation documents out of the documentation of its `Filters` member: an unordered
 * list whose items begin with the filter's name in `<code>`, with lists of values nested in some of them.
 */
import type { ServiceModel } from "./model.ts";
import type { Declarations } from "./read-declarations.ts";

/** The text of filters.ts: the documented filter names of each operation that takes filters. */
export function emitFilters(model: ServiceModel, declared: Declarations): string {
  const rows = model.operations.flatMap(({ name, input }) => {
    for (const [member, { type, documentation }] of declared.structures.get(input) ?? []) {
      if (type === "Filter[]" && /^Filters?$/.test(member)) return [[name, filterNames(documentation)] as const];
    }
    return [];
  });
  return [
    `/** The documented filters of ${model.serviceId}'s operations. Generated. */`,
    "const FILTERS: { readonly [operation: string]: readonly string[] } = {",
    ...rows.map(([name, filters]) => `  ${name}: ${JSON.stringify(filters)},`),
    "};",
    "",
    "/**",
    " * The filter names that AWS documents for an operation, in its order; `tag:<key>` stands for a tag of any key.",
    " * Empty when the operation takes no filters or documents none.",
    " */",
    "export const filtersOf = (operation: string): readonly string[] =>",
    "  Object.hasOwn(FILTERS, operation) ? FILTERS[operation]! : [];",
    "",
  ].join("\n");
}

/** The names that begin the items of the outer list. */
export function filterNames(documentation: string): string[] {
  const names: string[] = [];
  let depth = 0;
  let itemHead = false;
  for (const token of documentation.matchAll(/<(\/?)(ul|li|code)>|<\/?\w[^>]*>|[^<]+/g)) {
    const [text, closing, tag] = token;
    if (tag === "ul") depth += closing ? -1 : 1;
    else if (tag === "li") itemHead = !closing && depth === 1;
    else if (tag === "code" && !closing && itemHead) {
      const rest = documentation.slice(token.index + text.length);
      const end = rest.indexOf("</code>");
      let name = rest.slice(0, end);
      // `<code>tag</code>:<key>`: the key is written outside of the code element.
      const suffix = /^:(?:&lt;|<)(\w+)(?:&gt;|>)/.exec(rest.slice(end + "</code>".length));
      if (suffix) name += `:<${suffix[1]}>`;
      name = name.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replace(/\s+/g, "");
      if (name === "tag") name = "tag:<key>";
      if (/^[A-Za-z][\w.:<>-]*$/.test(name) && !names.includes(name)) names.push(name);
      itemHead = false;
    } else if (tag === undefined && !text.startsWith("<") && text.trim() !== "") itemHead = false;
  }
  return names;
}
