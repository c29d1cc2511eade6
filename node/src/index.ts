export type { FailedUserReason, FieldViolation, PermissionViolation, Quota, Users } from './binding.js'
export type { CallOptions, SetBotTimeSensitive, SetTimeSensitive, UserIdType } from './call.js'
export { Client, type ClientOptions, type CloseOptions } from './client.js'
export type { ClientEvent, ProvidedToken, TokenProvider, TokenReason } from './environment.js'
export {
  AuthenticationError,
  ClientClosedError,
  ConnectionFailedError,
  type ConnectionReason,
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
export {
  Many,
  type ManyItem,
  type ManyOptions,
  type ManyRequest,
  type Progress,
  type Report,
  type Unfinished,
} from './many.js'
export { Outcome } from './outcome.js'
