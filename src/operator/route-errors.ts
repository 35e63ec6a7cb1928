import { type AwsError, awsError } from "../model/errors.ts";
import type { StoreError } from "../model/store.ts";

export { type AwsError, awsError, invalidParameterValue } from "../model/errors.ts";

export const idNotFoundInRoute = (instanceId: string): AwsError =>
  awsError(
    "InvalidInstanceID.NotFound",
    `The instance ID '${instanceId}' does not exist, or has no console on this node`,
    404,
  );

export const internalError: AwsError = awsError(
  "InternalError",
  "an internal error has occurred; the daemon's log has the reason",
  500,
);

/** The store cannot do it now; its own sentence says why. */
export const unavailable = ({ reason, message }: StoreError): AwsError =>
  awsError(reason === "busy" ? "TooBusy" : "Unavailable", message, reason === "full" ? 507 : 503);
