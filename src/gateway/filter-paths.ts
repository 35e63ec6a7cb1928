/**
 * From a filter's documented name to the place in an item that it compares with. Most names are the item's own member
 * names in kebab case, joined by dots: `instance-type` is InstanceType, `network-interface.addresses.private-ip-address`
 * is NetworkInterfaces[].PrivateIpAddresses[].PrivateIpAddress. The rules, tried in this order on each structure:
 *
 *   1. a member of that name, in singular or plural             state → State, product-code… → ProductCodes
 *   2. a member, then the rest within it                        state-reason-code → StateReason.Code
 *   3. the structure's own name, then the rest                  instance-state-name → (Instance) State.Name
 *   4. the one member whose name ends so and that has the rest  addresses.primary → PrivateIpAddresses[].Primary
 *   5. the one structure beneath that has a member of that name tenancy → Placement.Tenancy
 *
 * A name that fits two places by rule 4 or 5 is not resolved: its operation has to say what it means.
 */
import type { FilterAccessor, FilterValue } from "../model/operation.ts";
import type { Member, Service, Shape, Structure } from "../protocol/shape.ts";

type Path = readonly string[];

/** Where the items of a Describe are in its output, when that is not the output's one list of structures. */
const ITEMS_OF: { readonly [operation: string]: Path } = {
  DescribeInstances: ["Reservations", "Instances"],
};

/** The structure of the items that a Describe operation lists; undefined when the output has no one list. */
export function itemShapeOf(service: Service, operation: string): Structure | undefined {
  const output = service.operation(operation)?.output;
  if (!output) return undefined;
  let shape: Structure | undefined = output;
  const path = ITEMS_OF[operation];
  if (path) {
    for (const name of path) shape = structureIn(shape?.members.find((member) => member.name === name)?.shape);
    return shape;
  }
  const lists = output.members.filter((member) => member.shape.kind === "list" && structureIn(member.shape));
  return lists.length === 1 ? structureIn(lists[0]!.shape) : undefined;
}

/** Reads what a documented filter compares with from an item; undefined when the rules find no place, or two. */
export function deriveAccessor(item: Structure, name: string): FilterAccessor<object> | undefined {
  if (name === "tag-key") return tagAccessor(item, (tags) => tags.map((tag) => tag.Key));
  if (name === "tag-value") return tagAccessor(item, (tags) => tags.map((tag) => tag.Value));
  if (name.startsWith("tag:")) {
    const key = name.slice("tag:".length);
    return tagAccessor(item, (tags) => tags.filter((tag) => tag.Key === key).map((tag) => tag.Value));
  }
  const path = resolvePath(item, name);
  return path && ((value) => valuesAt(value, path));
}

interface Tag {
  readonly Key: string;
  readonly Value: string;
}

/** Tags are in Tags or TagSet; an item of DescribeTags is a tag itself. */
function tagAccessor(item: Structure, read: (tags: readonly Tag[]) => string[]): FilterAccessor<object> | undefined {
  const has = (name: string) => item.members.some((member) => member.name === name);
  const list = has("Tags") ? "Tags" : has("TagSet") ? "TagSet" : undefined;
  if (list) return (value) => read(((value as Record<string, unknown>)[list] as readonly Tag[] | undefined) ?? []);
  return has("Key") && has("Value") ? (value) => read([value as Tag]) : undefined;
}

/** The member names that lead from an item to what a filter compares with; undefined when the rules find none. */
export const resolvePath = (item: Structure, name: string): Path | undefined => resolve(item, name.split("."));

function resolve(shape: Structure, segments: readonly string[]): Path | undefined {
  const [segment, ...rest] = segments;
  if (segment === undefined) return undefined;
  if (rest.length > 0) {
    if (segment === kebab(shape.name)) return resolve(shape, rest);
    const exact = named(shape, segment);
    const paths = (exact ? [exact] : endingIn(shape, segment)).flatMap((member) => {
      const inner = structureIn(member.shape);
      const path = inner && resolve(inner, rest);
      return path ? [[member.name, ...path]] : [];
    });
    return paths.length === 1 ? paths[0] : undefined;
  }
  return resolveLast(shape, segment, 2);
}

function resolveLast(shape: Structure, segment: string, depth: number): Path | undefined {
  const own = named(shape, segment);
  if (own && !structureIn(own.shape)) return [own.name];
  if (depth === 0) return undefined;
  // A longer member's name goes first: state-reason-code is StateReason.Code before State.ReasonCode.
  const prefixes = shape.members
    .flatMap((member) => namesOf(member).map((name) => ({ member, name })))
    .filter(({ name }) => segment.startsWith(`${name}-`))
    .sort((a, b) => b.name.length - a.name.length);
  for (const { member, name } of prefixes) {
    const inner = structureIn(member.shape);
    const path = inner && resolveLast(inner, segment.slice(name.length + 1), depth - 1);
    if (path) return [member.name, ...path];
  }
  const self = `${kebab(shape.name)}-`;
  if (segment.startsWith(self)) {
    const path = resolveLast(shape, segment.slice(self.length), depth - 1);
    if (path) return path;
  }
  const beneath = shape.members.flatMap((member) => {
    const inner = structureIn(member.shape);
    const found = inner && named(inner, segment);
    return found && !structureIn(found.shape) ? [[member.name, found.name]] : [];
  });
  return beneath.length === 1 ? beneath[0] : undefined;
}

const named = (shape: Structure, segment: string): Member | undefined =>
  shape.members.find((member) => namesOf(member).includes(segment));

const endingIn = (shape: Structure, segment: string): readonly Member[] =>
  shape.members.filter((member) => namesOf(member).some((name) => name.endsWith(`-${segment}`)));

/** A member's name in kebab case, and in the singular for a list; `Set` at the end is not said. */
function namesOf(member: Member): readonly string[] {
  const name = kebab(member.name);
  if (member.shape.kind !== "list") return [name];
  const singular = name.endsWith("ies")
    ? `${name.slice(0, -3)}y`
    : name.endsWith("sses")
      ? name.slice(0, -2)
      : name.endsWith("s")
        ? name.slice(0, -1)
        : name;
  return [name, singular, name.endsWith("-set") ? name.slice(0, -"-set".length) : singular];
}

/** `Ipv6CidrBlock` → `ipv6-cidr-block`, `VCpuInfo` → `vcpu-info`, `EbsOptimized` → `ebs-optimized`. */
export function kebab(name: string): string {
  return name
    .replace(/^VCpu/, "Vcpu")
    .replace(/([a-z0-9])([A-Z])/g, "$1-$2")
    .replace(/([A-Z]+)([A-Z][a-z])/g, "$1-$2")
    .toLowerCase();
}

function structureIn(shape: Shape | undefined): Structure | undefined {
  if (!shape) return undefined;
  if (shape.kind === "list") return structureIn(shape.item.shape);
  return shape.kind === "structure" ? shape : undefined;
}

/** The values at a path, through lists. */
function valuesAt(item: object, path: Path): FilterValue | readonly FilterValue[] {
  let values: unknown[] = [item];
  for (const name of path) {
    const next: unknown[] = [];
    for (const value of values) {
      const member = (value as Record<string, unknown>)[name];
      if (Array.isArray(member)) next.push(...member);
      else if (member !== undefined && member !== null) next.push(member);
    }
    values = next;
  }
  return values as FilterValue[];
}
