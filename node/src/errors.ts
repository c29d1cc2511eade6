import type { ErrorData, FieldViolation, PermissionViolation, Users } from './binding.js'
import { native } from './load.js'
import type { Outcome } from './outcome.js'

/** One class for each. */
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

/** Where on a call's way. */
export type Station = 'order' | 'quota' | 'token' | 'connect' | 'send' | 'answer'

/** Why there is no connection, or why it broke. */
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
  /** What is wrong, such as `userIds[3]`. */
  field?: string
  platformCode?: number
  /** The platform's. Prose that changes over the years: never branch on it. */
  msg?: string
  /** Of the last answer, as are `platformCode`, `msg` and `logId`. */
  httpStatus?: number
  /** The platform's support asks for it. */
  logId?: string
  /** Whether the same call may succeed later. */
  retryable: boolean
  /** How long to wait before, where that is known. */
  retryAfterMs?: number
  /** How often it was sent. */
  attempts: number
  /** The `call` of its events; absent if the input was refused. */
  call?: number
  station?: Station
  /** Of a {@link ConnectionFailedError}; absent if the process has no thread or descriptor left. */
  reason?: ConnectionReason
  hint?: string
  permissionViolations: readonly PermissionViolation[]
  fieldViolations: readonly FieldViolation[]
  /** Of the requests of a split call that succeeded, or what `throwIfFailed` was called on. */
  outcome?: Outcome
}

/**
 * The base of every error.
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

  /** For logs: all that is known, with the causes' messages, no stack. `name` is `type` and `msg` is `platformMsg`: loggers have keys of those names. */
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
// What is not known, or empty, stays out of a printed error.
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

/** `field` is wrong; nothing was sent. */
export class InvalidInputError extends FeedCardError {
  declare readonly code: 'INVALID_INPUT'
}
/** Wrong app, secret, ticket or token, also after a new token. */
export class AuthenticationError extends FeedCardError {
  declare readonly code: 'AUTHENTICATION'
}
/** A scope is missing, the bot is not in the chat, the IP is not allowed, the app is disabled. */
export class PermissionDeniedError extends FeedCardError {
  declare readonly code: 'PERMISSION_DENIED'
}
/** The platform refused the parameters. */
export class RejectedError extends FeedCardError {
  declare readonly code: 'REJECTED'
}
/** No slot before the deadline, or the replays are used up. */
export class RateLimitedError extends FeedCardError {
  declare readonly code: 'RATE_LIMITED'
}
/** The month's quota of the tenant is used up. */
export class QuotaExhaustedError extends FeedCardError {
  declare readonly code: 'QUOTA_EXHAUSTED'
}
/** A 5xx or an internal code, and the replays are used up. */
export class ServerError extends FeedCardError {
  declare readonly code: 'SERVER'
}
/** The answer could not be read: HTML, broken JSON, no `code`. */
export class UnexpectedResponseError extends FeedCardError {
  declare readonly code: 'UNEXPECTED_RESPONSE'
}
/** DNS, TCP, TLS or proxy failed, or the connection broke; `reason` says which. */
export class ConnectionFailedError extends FeedCardError {
  declare readonly code: 'CONNECTION'
}
/** The call's deadline passed; `station` says where. */
export class DeadlineExceededError extends FeedCardError {
  declare readonly code: 'TIMEOUT'
}
/** The client was closed before the call, or during it. */
export class ClientClosedError extends FeedCardError {
  declare readonly code: 'CLIENT_CLOSED'
}
/** Only from `Outcome.throwIfFailed()`. */
export class PartialFailureError extends FeedCardError {
  declare readonly code: 'PARTIAL_FAILURE'
}

/** With their names, which a program's own bundler may take from the classes. */
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
 * The error that the native module's data tells of.
 *
 * @internal
 */
export function errorOf(data: ErrorData, more: { cause?: unknown; outcome?: Outcome } = {}): FeedCardError {
  const { users, ...facts } = data
  const known = Object.entries({ ...facts, ...users }).filter(
    ([name, value]) =>
      !borderOnly.includes(name) && value !== undefined && !(Array.isArray(value) && value.length === 0),
  )
  const details: Partial<ErrorFacts> & ErrorOptions = {
    cause: causeOf(data.causes),
    ...Object.fromEntries(known),
    ...more,
  }
  const Kind = classes[data.kind as ErrorCode]?.[1] ?? FeedCardError
  return new Kind(data.message, details)
}

/** What the native module tells this one, and nobody else. */
const borderOnly = ['kind', 'message', 'causes', 'question']

/**
 * The error for a value of a wrong type: which, what it was (never a secret), what is expected.
 *
 * @internal
 */
export function invalidInput(field: string, value: string, expected: string): InvalidInputError {
  return new InvalidInputError(native.invalidMessage(field, value, expected), { field })
}

/** Longest chain of causes in JSON: a program's own error may be its own cause. */
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
 * Plain data with a `toJSON` that is not among its fields.
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
    // Where it happened is in no line of JavaScript.
    error.stack = `Error: ${text}`
    return error
  }, undefined)
}
