import { expect, test } from "bun:test";
import { ec2Service } from "./ec2-query.ts";
import { Service } from "./shape.ts";

const tables = {
  ...{ name: "toy", serviceId: "Toy", apiVersion: "1", protocol: "awsQuery", xmlNamespace: "urn:toy" },
  operations: 'Walk ["Node","",0]\nRest ["","",0]\n',
  shapes:
    'Node ["structure",0,[["Name","s",{"sensitive":1}],["Children","#NodeList"],["Labels","{s"],["Mood","=Mood"],["Numbers","[i"]],1]\n' +
    'NodeList ["list",0,[["member","#Node",{"x":"item"}]]]\n',
  enums: 'Mood ["calm","cross"]\n',
};

test("shapes are read when asked for, and may be recursive", () => {
  const toy = new Service(tables);
  const node = toy.operation("Walk")!.input!;
  const [name, children, labels, mood, numbers] = node.members;
  expect([name?.required, children?.required]).toEqual([true, false]);
  expect(name?.traits.sensitive).toBe(1);
  expect(children?.shape).toMatchObject({ kind: "list", item: { traits: { x: "item" } } });
  expect(children?.shape.kind === "list" && children.shape.item.shape).toBe(node);
  expect(labels?.shape).toMatchObject({ kind: "map", value: { shape: { kind: "string" } } });
  expect(mood?.shape).toEqual({ kind: "string", values: new Set(["calm", "cross"]) });
  expect(numbers?.shape).toMatchObject({ kind: "list", item: { shape: { kind: "integer" } } });
});

test("an operation without input or output has none, and an unknown one is undefined", () => {
  const toy = new Service(tables);
  expect(toy.operation("Rest")).toMatchObject({ input: undefined, output: undefined });
  expect(toy.operation("toString")).toBeUndefined();
  expect(toy.has("Walk")).toBe(true);
  expect(() => toy.structure("Nowhere")).toThrow("toy has Nowhere");
});

test("EC2's model says who it is", () => {
  const { serviceId, apiVersion, protocol, xmlNamespace } = ec2Service();
  expect([serviceId, apiVersion, protocol]).toEqual(["EC2", "2016-11-15", "ec2Query"]);
  expect(xmlNamespace).toBe("http://ec2.amazonaws.com/doc/2016-11-15");
});
