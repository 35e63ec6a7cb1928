/** Reason phrases of HTTP's status codes, RFC 9110, as far as Hive's own servers answer them. */
const REASONS: { readonly [status: number]: string } = {
  200: "OK",
  400: "Bad Request",
  401: "Unauthorized",
  403: "Forbidden",
  404: "Not Found",
  405: "Method Not Allowed",
  408: "Request Timeout",
  413: "Content Too Large",
  431: "Request Header Fields Too Large",
  501: "Not Implemented",
  503: "Service Unavailable",
};

/** The phrase of a status; `Error` for one that is not in the list. */
export const reasonOf = (status: number): string => REASONS[status] ?? "Error";
