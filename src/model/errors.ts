/** An error as AWS spells it. `cause` is for the log and never reaches the wire. */
export interface AwsError {
  readonly code: string;
  /** HTTP status. */
  readonly status: number;
  readonly message: string;
  readonly cause?: unknown;
}

/** Builds an error of the client's making (status 400) unless `status` says otherwise. */
export const awsError = (code: string, message: string, status = 400): AwsError => ({ code, status, message });

export const missingParameter = (name: string): AwsError =>
  awsError("MissingParameter", `The request must contain the parameter ${name}`);

export const unknownParameter = (name: string): AwsError =>
  awsError("UnknownParameter", `The parameter ${name} is not recognized`);

export const invalidParameterValue = (message: string): AwsError => awsError("InvalidParameterValue", message);

/** EC2's usual sentence for a value that a parameter cannot take. */
export const invalidValueFor = (name: string, value: string, why = ""): AwsError =>
  awsError("InvalidParameterValue", `Value (${value}) for parameter ${name} is invalid.${why ? ` ${why}` : ""}`);

export const invalidParameterCombination = (message: string): AwsError =>
  awsError("InvalidParameterCombination", message);

export const unsupportedOperation = (message: string): AwsError => awsError("UnsupportedOperation", message);

export const incorrectInstanceState = (message: string): AwsError => awsError("IncorrectInstanceState", message);

export const dependencyViolation = (message: string): AwsError => awsError("DependencyViolation", message);

export const insufficientInstanceCapacity = (message: string): AwsError =>
  awsError("InsufficientInstanceCapacity", message, 500);

export const internalError = (requestId: string, cause: unknown): AwsError => ({
  code: "InternalError",
  status: 500,
  message: `An internal error has occurred. Hive's log has the reason under request ${requestId}.`,
  cause,
});

export const serviceUnavailable = (message: string): AwsError => awsError("Unavailable", message, 503);
