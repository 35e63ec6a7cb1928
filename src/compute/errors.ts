/** Refusals of the compute API in EC2's words, by name. */
import { type AwsError, awsError, incorrectInstanceState, unsupportedOperation } from "../model/errors.ts";

/** @param how the participle of the request: started, stopped, rebooted */
export const notInStateFor = (instanceId: string, how: string): AwsError =>
  incorrectInstanceState(`The instance '${instanceId}' is not in a state from which it can be ${how}.`);

export const notInState = (instanceId: string, state: string): AwsError =>
  incorrectInstanceState(`The instance '${instanceId}' is not in the '${state}' state.`);

export const protectedFrom = (instanceId: string, how: "stopped" | "terminated"): AwsError =>
  awsError(
    "OperationNotPermitted",
    `The instance '${instanceId}' may not be ${how}. Modify its '${
      how === "stopped" ? "disableApiStop" : "disableApiTermination"
    }' instance attribute and try again.`,
  );

export const invalidInstanceType = (type: string): AwsError =>
  awsError("InvalidParameterValue", `Invalid value '${type}' for InstanceType.`);

/** What Hive knows of but cannot do yet: the parameter is refused rather than ignored. */
export const notYet = (what: string): AwsError =>
  unsupportedOperation(`${what} is not supported by this version of Hive.`);

export const keyPairNotFound = (name: string): AwsError =>
  awsError("InvalidKeyPair.NotFound", `The key pair '${name}' does not exist`);

export const authFailure = (what: string): AwsError => awsError("AuthFailure", what, 403);
