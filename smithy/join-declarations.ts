/** Joins the d.ts to the tuples: every member must be found in both and agree, and string members learn their enum. */
import type { Member, ServiceModel, Shape, Structure, Target } from "./model.ts";
import { NotUnderstood } from "./model.ts";
import type { Declarations } from "./read-declarations.ts";

/** Sets the targets of enum members in `model`. @throws NotUnderstood where the two sources differ */
export function joinDeclarations(model: ServiceModel, declared: Declarations): void {
  for (const shape of model.shapes.values()) {
    if (shape.kind !== "structure") continue;
    const members = declared.structures.get(declaredName(shape.name, declared));
    if (!members) throw new NotUnderstood(`no interface for ${model.name} ${shape.name}`);
    joinStructure(model, declared, shape, members);
  }
}

function joinStructure(
  model: ServiceModel,
  declared: Declarations,
  shape: Structure,
  members: ReadonlyMap<string, { readonly type: string }>,
): void {
  if (members.size !== shape.members.length) throw new NotUnderstood(`members of ${model.name} ${shape.name}`);
  for (const member of shape.members) {
    const type = members.get(member.name)?.type;
    if (type === undefined) throw new NotUnderstood(`${shape.name}.${member.name} is not declared`);
    joinMember(model, declared, member, type, `${shape.name}.${member.name}`);
  }
}

/** Checks that `type` is how the SDK writes `member`'s target, and narrows a string to its enum. */
function joinMember(model: ServiceModel, declared: Declarations, member: Member, type: string, where: string): void {
  const target = member.target;
  const disagree = () => new NotUnderstood(`${model.name} ${where} is ${target}, declared as ${type}`);
  if (type.endsWith("[]")) {
    const item = type.slice(0, -2).replace(/^\((.*)\)$/, "$1");
    if (target.startsWith("[")) {
      const inner: Member = { name: "member", target: target.slice(1), traits: {} };
      joinMember(model, declared, inner, item, where);
      member.target = `[${inner.target}`;
      return;
    }
    const list = shapeOf(model, target);
    if (list?.kind !== "list") throw disagree();
    joinMember(model, declared, list.item, item, where);
    return;
  }
  const events = /^AsyncIterable<(\w+)>$/.exec(type);
  if (events && target === `#${events[1]}`) return;
  const record = /^(?:Partial<)?Record<\w+, (.+?)>{1,2}$/.exec(type);
  if (record) {
    if (target.startsWith("{")) return;
    const map = shapeOf(model, target);
    if (map?.kind !== "map") throw disagree();
    joinMember(model, declared, map.value, record[1]!, where);
    return;
  }
  if (declared.enums.has(type)) {
    if (target !== "s" && target !== `=${type}`) throw disagree();
    member.target = `=${type}`;
    return;
  }
  if (!WRITTEN[target[0]!]?.includes(type) && target !== `#${type.replace(/^_/, "")}`) throw disagree();
}

/** The interface of a shape: the SDK puts an underscore before the names of JavaScript's own (`Object`, `Error`). */
export const declaredName = (shape: string, declared: Declarations): string =>
  declared.structures.has(`_${shape}`) ? `_${shape}` : shape;

/** How the SDK's declarations write each simple target. */
const WRITTEN: { readonly [target: string]: readonly string[] } = {
  s: ["string"],
  i: ["number"],
  f: ["number"],
  b: ["boolean"],
  t: ["Date"],
  x: ["Uint8Array"],
  X: ["StreamingBlobTypes", "StreamingBlobPayloadInputTypes", "StreamingBlobPayloadOutputTypes"],
  d: ["__DocumentType"],
  I: ["bigint"],
  D: ["NumericValue"],
};

function shapeOf(model: ServiceModel, target: Target): Shape | undefined {
  return target.startsWith("#") ? model.shapes.get(target.slice(1)) : undefined;
}
