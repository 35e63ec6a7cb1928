/**
 * Zone ids, as `use1-az1` for `us-east-1a`. AWS shuffles the letters for each account; Hive does not: the first zone of a
 * region is its az1.
 */
const DIRECTIONS: { readonly [word: string]: string } = {
  north: "n",
  south: "s",
  east: "e",
  west: "w",
  central: "c",
  northeast: "ne",
  northwest: "nw",
  southeast: "se",
  southwest: "sw",
};

/** `us-east-1` as AWS shortens it in zone ids: `use1`; `us-gov-west-1`: `usgw1`. */
export function regionAbbreviation(region: string): string {
  const words = region.split("-");
  return words
    .map((word, i) => (i === 0 ? word : (DIRECTIONS[word] ?? (/^\d+$/.test(word) ? word : word[0]))))
    .join("");
}

/** The id of a zone: its place among the region's zones, from 1; a zone that is no longer named counts by its letter. */
export function zoneId(region: string, zones: readonly string[], zone: string): string {
  const place = zones.indexOf(zone);
  const letter = zone.charCodeAt(zone.length - 1) - 96;
  const number = place >= 0 ? place + 1 : letter >= 1 && letter <= 26 ? letter : 1;
  return `${regionAbbreviation(region)}-az${number}`;
}
