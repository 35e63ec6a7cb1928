import { encode } from "jpeg-js";
import { fail, ok, type Result } from "../../lib/result.ts";

/** Quality of the JPEG, of 100: text stays readable. */
const QUALITY = 80;
const PIXELS_MAX = 8192 * 8192;

/** Turns a binary PPM ("P6", netpbm's ppm(5), at most 255 a sample), as QEMU's screendump writes it, into a JPEG. */
export function ppmToJpeg(ppm: Buffer): Result<Uint8Array, string> {
  const header = ppm
    .subarray(0, 64)
    .toString("latin1")
    .match(/^P6\s+(\d+)\s+(\d+)\s+255\s/);
  if (!header) return fail("not a PPM of 255 levels");
  const [width, height] = [Number(header[1]), Number(header[2])];
  const pixels = ppm.subarray(header[0].length);
  if (width * height === 0 || width * height > PIXELS_MAX) return fail(`a screen of ${width} × ${height}`);
  if (pixels.length < width * height * 3) return fail("cut short");
  const data = Buffer.alloc(width * height * 4, 255);
  for (let from = 0, to = 0; to < data.length; from += 3, to += 4) {
    data[to] = pixels[from]!;
    data[to + 1] = pixels[from + 1]!;
    data[to + 2] = pixels[from + 2]!;
  }
  return ok(encode({ data, width, height }, QUALITY).data);
}
