import { expect, test } from "bun:test";
import fc from "fast-check";
import { cutPage, type PageRequest } from "./pages.ts";

const KEY = new Uint8Array(32).fill(1);
const page = { min: 1, max: 1000, key: (item: string) => item };
const request = (maxResults?: number, nextToken?: string, over: Partial<PageRequest> = {}): PageRequest => ({
  operation: "DescribeVpcs",
  accountId: "1",
  region: "us-east-1",
  input: { Filters: [{ Name: "state", Values: ["available"] }], MaxResults: maxResults },
  maxResults,
  nextToken,
  ...over,
});

test("pages together are the whole list in order, each item once", () => {
  fc.assert(
    fc.property(
      fc.uniqueArray(fc.string({ unit: "grapheme", minLength: 1 })),
      fc.integer({ min: 1, max: 7 }),
      (items, size) => {
        const seen: string[] = [];
        let token: string | undefined;
        do {
          const cut = cutPage(items, page, request(size, token), KEY);
          if (!cut.ok) throw new Error(cut.error.message);
          expect(cut.value.items.length).toBeLessThanOrEqual(size);
          seen.push(...cut.value.items);
          token = cut.value.nextToken;
        } while (token !== undefined);
        expect(seen).toEqual([...items].sort((a, b) => (a < b ? -1 : 1)));
      },
    ),
  );
});

test("an item that goes between two pages takes no other with it", () => {
  const first = cutPage(["a", "b", "c", "d"], page, request(2), KEY);
  const token = first.ok ? first.value.nextToken : undefined;
  expect(cutPage(["a", "c", "d"], page, request(2, token), KEY)).toMatchObject({
    value: { items: ["c", "d"], nextToken: undefined },
  });
});

test("a token holds for its own request only", () => {
  const first = cutPage(["a", "b", "c"], page, request(1), KEY);
  const token = (first.ok && first.value.nextToken) || "";
  const refused = { ok: false, error: { code: "InvalidNextToken" } };
  expect(cutPage(["a", "b"], page, request(5, token), KEY)).toMatchObject({ ok: true });
  expect(cutPage(["a", "b"], page, request(1, token, { operation: "DescribeSubnets" }), KEY)).toMatchObject(refused);
  expect(cutPage(["a", "b"], page, request(1, token, { accountId: "2" }), KEY)).toMatchObject(refused);
  expect(cutPage(["a", "b"], page, request(1, token, { region: "eu-west-1" }), KEY)).toMatchObject(refused);
  expect(cutPage(["a", "b"], page, request(1, token, { input: {} }), KEY)).toMatchObject(refused);
  expect(cutPage(["a", "b"], page, request(1, token), new Uint8Array(32))).toMatchObject(refused);
  for (const garbage of ["x", "AAAA", `${token}A`, "ü", "a".repeat(10_000), token.slice(1)]) {
    expect(cutPage(["a", "b"], page, request(1, garbage), KEY)).toMatchObject(refused);
  }
});

test("MaxResults has bounds", () => {
  const bounded = { ...page, min: 5, max: 10 };
  expect(cutPage(["a"], bounded, request(4), KEY)).toMatchObject({
    error: {
      code: "InvalidParameterValue",
      message: "Value ( 4 ) for parameter maxResults is invalid. Expecting a value greater than or equal to 5.",
    },
  });
  expect(cutPage(["a"], bounded, request(11), KEY)).toMatchObject({ ok: false });
  expect(cutPage(["a"], bounded, request(5), KEY)).toMatchObject({ ok: true });
});
