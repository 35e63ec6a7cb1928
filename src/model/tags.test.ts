import { expect, test } from "bun:test";
import { parseTags, tagList, tagsFor } from "./tags.ts";

const refusal = (result: ReturnType<typeof parseTags>) => (result.ok ? "" : result.error.code);

test("tags of the wanted type are kept, others of the operation's types are left, and foreign types refused", () => {
  const specifications = [
    { ResourceType: "instance", Tags: [{ Key: "a", Value: "1" }] },
    { ResourceType: "volume", Tags: [{ Key: "b" }] },
    { ResourceType: "instance", Tags: [{ Key: "__proto__", Value: "2" }] },
  ];
  const kept = tagsFor(specifications, "instance", ["instance", "volume"]);
  expect(kept.ok && Object.entries(kept.value)).toEqual([
    ["a", "1"],
    ["__proto__", "2"],
  ]);
  expect(tagsFor(specifications, "volume", ["instance", "volume"])).toMatchObject({ ok: true, value: { b: "" } });
  expect(refusal(tagsFor(specifications, "volume"))).toBe("InvalidParameterValue");
  expect(tagsFor(undefined, "volume")).toEqual({ ok: true, value: {} });
});

test("reserved, empty, overlong, repeated and too many tags are refused", () => {
  expect(refusal(parseTags([{ Key: "aws:x" }]))).toBe("InvalidParameterValue");
  expect(refusal(parseTags([{ Value: "x" }]))).toBe("InvalidParameterValue");
  expect(refusal(parseTags([{ Key: "k".repeat(129) }]))).toBe("InvalidParameterValue");
  expect(refusal(parseTags([{ Key: "k", Value: "v".repeat(257) }]))).toBe("InvalidParameterValue");
  expect(refusal(parseTags([{ Key: "k" }, { Key: "k" }]))).toBe("InvalidParameterValue");
  expect(refusal(parseTags(Array.from({ length: 51 }, (_, i) => ({ Key: `k${i}` }))))).toBe("TagLimitExceeded");
});

test("tags are listed by key", () => {
  const record = {
    resourceId: "i",
    resourceType: "instance",
    accountId: "1" as never,
    region: "r",
    tags: { b: "2", a: "1" },
  };
  expect(tagList(record).map((tag) => tag.Key)).toEqual(["a", "b"]);
  expect(tagList(undefined)).toEqual([]);
});
