import type { ErrorData, FieldViolation, PermissionViolation, Users } from './binding.js'
import { native } from './load.js'
import type { Outcome } from './outcome.js'

/** Each code has a class. */
export type ErrorCode =
  | 'INVALID_INPUT'
  | 'AUTHENTICATION'
  | 'PERMISSION_DENIED'
  | 'REJECTED'
  | 'RATE_LIMITED'
  | 'QUOTA_EXHAUSTED'
  | 'SERVER'
  | 'UNEXPECTED_RESPONSE'
  | 'CONNECTION'
  | 'TIMEOUT'
  | 'CLIENT_CLOSED'
  | 'PARTIAL_FAILURE'

/** The step at which a call failed. */
export type Station = 'order' | 'quota' | 'token' | 'connect' | 'send' | 'answer'

/** Why a connection could not be made, or why it broke. */
export type ConnectionReason =
  | 'dns'
  | 'refused'
  | 'unreachable'
  | 'timeout'
  | 'tls_untrusted'
  | 'tls_expired'
  | 'tls_name'
  | 'tls'
  | 'proxy'
  | 'proxy_auth'
  | 'closed'

export interface ErrorFacts extends Users {
  /** The invalid argument, such as `userIds[3]`. */
  field?: string
  platformCode?: number
  /** The platform's message. It changes: do not branch on it. */
  msg?: string
  /** Of the last response, as are `platformCode`, `msg` and `logId`. */
  httpStatus?: number
  /** For the platform's support. */
  logId?: string
  /** Whether the same call may succeed later. */
  retryable: boolean
  /** How long to wait before the next try, if known. */
  retryAfterMs?: number
  /** How many times the request was sent. */
  attempts: number
  /** The call's number, as in its events. Absent if the input was invalid. */
  call?: number
  station?: Station
  /** Of a {@link ConnectionFailedError}. Absent if the process has no thread or file descriptor left. */
  reason?: ConnectionReason
  /** What to do. */
  hint?: string
  permissionViolations: readonly PermissionViolation[]
  fieldViolations: readonly FieldViolation[]
  /** Of the successful requests of a split call. Of a {@link PartialFailureError}, the whole outcome. */
  outcome?: Outcome
}

/**
 * The base class of all errors.
 *
 * @example
 * ```ts
 * try {
 *   await client.setTimeSensitive({ feedCardId, userIds, timeSensitive: true })
 * } catch (error) {
 *   if (error instanceof RateLimitedError) await sleep(error.retryAfterMs ?? 1000)
 *   else if (error instanceof FeedCardError) console.error(error.code, error.logId, error.hint)
 *   else throw error
 * }
 * ```
 */
export class FeedCardError extends Error {
  constructor(message: string, details: Partial<ErrorFacts> & ErrorOptions = {}) {
    const { cause, ...known } = details
    super(message, cause === undefined ? undefined : { cause })
    Object.assign(this, { code: this.code }, known)
  }

  /** Plain data for logs, with the messages of the causes. `name` becomes `type` and `msg` becomes `platformMsg`, because loggers use these keys. */
  toJSON(): object {
    const { name: type, message, retryable, attempts } = this
    const { msg, ...known } = this
    return {
      ...Object.assign({ type, message, retryable, attempts }, known),
      ...(msg !== undefined && { platformMsg: msg }),
      ...causesOf(this.cause),
    }
  }
}

export interface FeedCardError extends Readonly<ErrorFacts> {
  readonly code: ErrorCode
}

/** @internal */
export const nothing: never[] = []
Object.freeze(nothing)
// Defaults on the prototype: a printed error does not show them.
Object.defineProperty(FeedCardError.prototype, 'name', { value: 'FeedCardError' })
Object.assign(FeedCardError.prototype, {
  retryable: false,
  attempts: 0,
  permissionViolations: nothing,
  fieldViolations: nothing,
  reached: nothing,
  failed: nothing,
  unknown: nothing,
  notAttempted: nothing,
})

/** `field` is invalid. Nothing was sent. */
export class InvalidInputError extends FeedCardError {
  declare readonly code: 'INVALID_INPUT'
}
/** The app id, secret, ticket or token was refused, also after a retry with a new token. */
export class AuthenticationError extends FeedCardError {
  declare readonly code: 'AUTHENTICATION'
}
/** A scope is missing, the bot is not in the chat, the IP is blocked, or the app is disabled. */
export class PermissionDeniedError extends FeedCardError {
  declare readonly code: 'PERMISSION_DENIED'
}
/** The platform refused the parameters. */
export class RejectedError extends FeedCardError {
  declare readonly code: 'REJECTED'
}
/** No slot of the quota before the deadline, or all retries were rate-limited. */
export class RateLimitedError extends FeedCardError {
  declare readonly code: 'RATE_LIMITED'
}
/** The tenant's monthly quota is used up. */
export class QuotaExhaustedError extends FeedCardError {
  declare readonly code: 'QUOTA_EXHAUSTED'
}
/** A 5xx status or internal error code, also for all retries. */
export class ServerError extends FeedCardError {
  declare readonly code: 'SERVER'
}
/** The response is HTML, invalid JSON, or has no `code`. */
export class UnexpectedResponseError extends FeedCardError {
  declare readonly code: 'UNEXPECTED_RESPONSE'
}
/** The connection failed or broke. `reason` says why. */
export class ConnectionFailedError extends FeedCardError {
  declare readonly code: 'CONNECTION'
}
/** The deadline passed. `station` says at which step. */
export class DeadlineExceededError extends FeedCardError {
  declare readonly code: 'TIMEOUT'
}
/** The client was closed before or during the call. */
export class ClientClosedError extends FeedCardError {
  declare readonly code: 'CLIENT_CLOSED'
}
/** Some users were not reached. Thrown only by `Outcome.throwIfFailed()`. */
export class PartialFailureError extends FeedCardError {
  declare readonly code: 'PARTIAL_FAILURE'
}

/** The classes with their names, because a bundler may rename the classes. */
const classes: Record<ErrorCode, [string, typeof FeedCardError]> = {
  INVALID_INPUT: ['InvalidInputError', InvalidInputError],
  AUTHENTICATION: ['AuthenticationError', AuthenticationError],
  PERMISSION_DENIED: ['PermissionDeniedError', PermissionDeniedError],
  REJECTED: ['RejectedError', RejectedError],
  RATE_LIMITED: ['RateLimitedError', RateLimitedError],
  QUOTA_EXHAUSTED: ['QuotaExhaustedError', QuotaExhaustedError],
  SERVER: ['ServerError', ServerError],
  UNEXPECTED_RESPONSE: ['UnexpectedResponseError', UnexpectedResponseError],
  CONNECTION: ['ConnectionFailedError', ConnectionFailedError],
  TIMEOUT: ['DeadlineExceededError', DeadlineExceededError],
  CLIENT_CLOSED: ['ClientClosedError', ClientClosedError],
  PARTIAL_FAILURE: ['PartialFailureError', PartialFailureError],
}
for (const [code, [name, kind]] of Object.entries(classes)) {
  Object.defineProperties(kind.prototype, {
    name: { value: name },
    code: { value: code, writable: true },
  })
}

/**
 * Returns the error for the native module's data.
 *
 * @internal
 */
export function errorOf(data: ErrorData, more: { cause?: unknown; outcome?: Outcome } = {}): FeedCardError {
  const { users, ...facts } = data
  const known = Object.entries({ ...facts, ...users }).filter(
    ([name, value]) =>
      !internalFields.includes(name) && value !== undefined && !(Array.isArray(value) && value.length === 0),
  )
  const details: Partial<ErrorFacts> & ErrorOptions = {
    cause: causeOf(data.causes),
    ...Object.fromEntries(known),
    ...more,
  }
  const Kind = classes[data.kind as ErrorCode]?.[1] ?? FeedCardError
  return new Kind(data.message, details)
}

/** Fields that are not passed on to the error. */
const internalFields = ['kind', 'message', 'causes', 'providerCall']

/**
 * Returns the error for a value of a wrong type. `value` describes the value and must not show a secret.
 *
 * @internal
 */
export function invalidInput(field: string, value: string, expected: string): InvalidInputError {
  return new InvalidInputError(native.invalidMessage(field, value, expected), { field })
}

/** Maximum number of causes in JSON. The chain may be endless: an error can be its own cause. */
const mostCauses = 10

function causesOf(cause: unknown): { causes: string[] } | undefined {
  const causes: string[] = []
  let next = cause
  while (next instanceof Error && causes.length < mostCauses) {
    causes.push(next.message || next.name)
    next = next.cause
  }
  if (typeof next === 'string') {
    causes.push(next)
  }
  return causes.length > 0 ? { causes } : undefined
}

/**
 * Adds a `toJSON` method that is not enumerable.
 *
 * @internal
 */
export function withJSON<T extends object>(data: T): T & { toJSON(): object } {
  return Object.defineProperty(data, 'toJSON', { value: toJSON }) as T & { toJSON(): object }
}

function toJSON(this: object): object {
  return JSON.parse(JSON.stringify({ ...this })) as object
}

function causeOf(causes: string[]): Error | undefined {
  return causes.reduceRight<Error | undefined>((cause, text) => {
    const error = new Error(text, cause && { cause })
    // The error did not occur in JavaScript, so a stack would mislead.
    error.stack = `Error: ${text}`
    return error
  }, undefined)
}
