export type { FailedUserReason, FieldViolation, PermissionViolation, Quota, Users } from './binding.js'
export {
  type CallOptions,
  Client,
  type ClientOptions,
  type SetBotTimeSensitive,
  type SetTimeSensitive,
  type UserIdType,
} from './client.js'
export type { ProvidedToken, TokenProvider } from './environment.js'
export {
  AuthenticationError,
  ConnectionFailedError,
  DeadlineExceededError,
  type ErrorCode,
  type ErrorFacts,
  FeedCardError,
  InvalidInputError,
  PartialFailureError,
  PermissionDeniedError,
  QuotaExhaustedError,
  RateLimitedError,
  RejectedError,
  ServerError,
  type Station,
  UnexpectedResponseError,
} from './errors.js'
export { Outcome } from './outcome.js'
