/**
 * Why a signature was refused, and how each family of AWS services says so. EC2 has one word for nearly everything
 * (AuthFailure); the query services (STS, IAM and the rest) tell more; S3 and the JSON services have codes of their own.
 */
import { type AwsError, awsError } from "../model/errors.ts";

export type SignatureFailure =
  /** No signature at all. */
  | { readonly kind: "missing" }
  /** There is one, but a part is missing or has the wrong form. `message` names it. */
  | { readonly kind: "incomplete"; readonly message: string }
  /** Signed for another day, region, service or protocol. */
  | { readonly kind: "scope"; readonly message: string }
  /** No such access key, or it is inactive. */
  | { readonly kind: "unknown-key"; readonly accessKeyId: string }
  /** Signed too long ago, or the time that the signer gave has passed. */
  | { readonly kind: "expired"; readonly message: string }
  /** Signed in the future. */
  | { readonly kind: "not-yet"; readonly message: string }
  /** `host` or an `x-amz-*` header is not among the signed ones. */
  | { readonly kind: "unsigned-header"; readonly header: string }
  | { readonly kind: "mismatch" };

/** How a service words its errors. */
export type Dialect = "ec2" | "query" | "s3" | "json";

const CREDENTIALS = "AWS was not able to validate the provided access credentials";
const MISMATCH =
  "The request signature we calculated does not match the signature you provided. " +
  "Check your AWS Secret Access Key and signing method. Consult the service documentation for details.";

/** The failure as the service's own error. Never says more than AWS does about why a signature is wrong. */
export function signatureError(failure: SignatureFailure, dialect: Dialect): AwsError {
  switch (dialect) {
    case "ec2":
      return ec2Error(failure);
    case "query":
      return queryError(failure);
    case "s3":
      return s3Error(failure);
    case "json":
      return jsonError(failure);
  }
}

function ec2Error(failure: SignatureFailure): AwsError {
  switch (failure.kind) {
    case "missing":
      return awsError("MissingAuthenticationToken", "Request is missing Authentication Token", 403);
    case "incomplete":
      return awsError(
        "AuthFailure",
        `Authorization header or parameters are not formatted correctly. ${failure.message}`,
        401,
      );
    case "scope":
      return awsError("AuthFailure", failure.message, 401);
    case "unsigned-header":
      return awsError("AuthFailure", unsignedHeader(failure.header), 401);
    case "expired":
      return awsError("RequestExpired", "Request has expired.", 400);
    // A clock that is ahead is a plain AuthFailure on EC2.
    case "not-yet":
    case "unknown-key":
    case "mismatch":
      return awsError("AuthFailure", CREDENTIALS, 401);
  }
}

function queryError(failure: SignatureFailure): AwsError {
  switch (failure.kind) {
    case "missing":
      return awsError("MissingAuthenticationToken", "Request is missing Authentication Token", 403);
    case "incomplete":
      return awsError("IncompleteSignature", failure.message, 400);
    case "unknown-key":
      return awsError("InvalidClientTokenId", "The security token included in the request is invalid.", 403);
    case "scope":
    case "expired":
    case "not-yet":
      return awsError("SignatureDoesNotMatch", failure.message, 403);
    case "unsigned-header":
      return awsError("SignatureDoesNotMatch", unsignedHeader(failure.header), 403);
    case "mismatch":
      return awsError("SignatureDoesNotMatch", MISMATCH, 403);
  }
}

function s3Error(failure: SignatureFailure): AwsError {
  switch (failure.kind) {
    case "missing":
      return awsError("AccessDenied", "Access Denied", 403);
    case "incomplete":
      return awsError("AuthorizationHeaderMalformed", failure.message, 400);
    case "scope":
      return awsError("AuthorizationHeaderMalformed", `The authorization header is malformed; ${failure.message}`, 400);
    case "unknown-key":
      return awsError("InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.", 403);
    case "expired":
    case "not-yet":
      return awsError(
        "RequestTimeTooSkewed",
        "The difference between the request time and the current time is too large.",
        403,
      );
    case "unsigned-header":
      return awsError("AccessDenied", "There were headers present in the request which were not signed", 403);
    case "mismatch":
      return awsError(
        "SignatureDoesNotMatch",
        "The request signature we calculated does not match the signature you provided. Check your key and signing method.",
        403,
      );
  }
}

function jsonError(failure: SignatureFailure): AwsError {
  switch (failure.kind) {
    case "missing":
      return awsError("MissingAuthenticationTokenException", "Missing Authentication Token", 403);
    case "incomplete":
      return awsError("IncompleteSignatureException", failure.message, 403);
    case "unknown-key":
      return awsError("UnrecognizedClientException", "The security token included in the request is invalid.", 403);
    case "scope":
    case "expired":
    case "not-yet":
      return awsError("InvalidSignatureException", failure.message, 403);
    case "unsigned-header":
      return awsError("InvalidSignatureException", unsignedHeader(failure.header), 403);
    case "mismatch":
      return awsError("InvalidSignatureException", MISMATCH, 403);
  }
}

const unsignedHeader = (header: string): string =>
  header === "host"
    ? "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization."
    : `The header '${header}' must be a 'SignedHeader' in the AWS Authorization.`;
