import { expect, test } from "bun:test";
import { filtersOf } from "../src/schema/ec2/filters.ts";
import { filterNames } from "./emit-filters.ts";

const item = (body: string) => `<li>\n<p>\n<code>${body}</p>\n</li>`;
const table: [claim: string, documentation: string, names: string[]][] = [
  [
    "each item's first code",
    `<p>The filters.</p><ul>${item("vpc-id</code> - The VPC, <code>x</code>.")}${item("state</code> (<code>a</code>)")}</ul>`,
    ["vpc-id", "state"],
  ],
  [
    "nested values are not names",
    `<ul><li><p><code>status</code> - One of:</p><ul>${item("attached</code>")}</ul></li></ul>`,
    ["status"],
  ],
  ["a tag with its key outside of the code", `<ul>${item("tag</code>:&lt;key&gt; - The key")}</ul>`, ["tag:<key>"]],
  ["a tag with its key inside", `<ul>${item("tag:&lt;key&gt;</code> - The key")}</ul>`, ["tag:<key>"]],
  ["a tag without its key", `<ul>${item("tag</code> - The key")}</ul>`, ["tag:<key>"]],
  ["prose before the code", "<ul><li>See <code>DescribeVpcs</code></li></ul>", []],
  ["no list", "<p>One or more filters, such as <code>x</code>.</p>", []],
];
test.each(table)("filter names: %s", (_, documentation, names) => expect(filterNames(documentation)).toEqual(names));

test("the operations that people filter most have theirs", () => {
  for (const [operation, name] of [
    ["DescribeInstances", "instance-state-name"],
    ["DescribeInstances", "tag:<key>"],
    ["DescribeVolumes", "attachment.instance-id"],
    ["DescribeVpcs", "is-default"],
    ["DescribeSecurityGroups", "group-name"],
    ["DescribeImages", "root-device-type"],
  ] as const) {
    expect(filtersOf(operation)).toContain(name);
  }
  expect(filtersOf("toString")).toEqual([]);
});
