import { reasonOf } from "../../lib/http-status.ts";

/** One question to the metadata service and its answer, apart from sockets. */
export interface MetadataRequest {
  readonly method: string;
  /** Path and query as they came. */
  readonly target: string;
  /** Names in lower case; a name that came twice has both values, joined by a comma. */
  readonly headers: ReadonlyMap<string, string>;
}

export interface MetadataResponse {
  readonly status: number;
  readonly contentType: string;
  readonly headers?: { readonly [name: string]: string };
  readonly body: string | Uint8Array;
  /** IP's time to live of the answer's packets: how many routers they may pass. The host's own default when absent. */
  readonly hopLimit?: number;
}

export const text = (body: string): MetadataResponse => ({ status: 200, contentType: "text/plain", body });

/** An error in the form of EC2's own: a short XHTML page. */
export function errorPage(status: number, headers?: { readonly [name: string]: string }): MetadataResponse {
  const title = `${status} - ${reasonOf(status)}`;
  const body = `<?xml version="1.0" encoding="iso-8859-1"?>
<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN"
\t"http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">
<html xmlns="http://www.w3.org/1999/xhtml" xml:lang="en" lang="en">
 <head>
  <title>${title}</title>
 </head>
 <body>
  <h1>${title}</h1>
 </body>
</html>
`;
  return { status, contentType: "text/html", body, ...(headers && { headers }) };
}
