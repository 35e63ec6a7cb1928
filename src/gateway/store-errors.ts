/** The store's failures, as a caller of the API sees them. */
import { type AwsError, awsError, serviceUnavailable } from "../model/errors.ts";
import type { StoreError } from "../model/store.ts";

export function storeErrorAsAws(error: StoreError): AwsError {
  return { ...translated(error), cause: error };
}

function translated(error: StoreError): AwsError {
  switch (error.reason) {
    case "busy":
      // Clients of the SDKs slow down and try again at this code.
      return awsError("RequestLimitExceeded", "Request limit exceeded.", 503);
    case "too-large":
      return awsError("RequestResourceCountExceeded", "The request changes more than one transaction may hold.");
    case "full":
      return serviceUnavailable("The server has no disk space left to record changes. Reading still works.");
    case "failed":
      return serviceUnavailable(
        "The server's disk failed. Nothing can be changed until it is restarted on a good disk.",
      );
    default:
      return serviceUnavailable("The server cannot record changes at the moment. Please try again shortly.");
  }
}
