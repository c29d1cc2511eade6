import type { ErrorData, FailedUserReason, OutcomeData, Users } from './binding.js'
import { errorOf, nothing } from './errors.js'

/** Only this module has it. */
const ours = Symbol('outcome')
let outcomeFrom: (data: OutcomeData) => Outcome

/**
 * What a call that the platform accepted came back with. Users may still have failed one by one.
 *
 * @example
 * ```ts
 * const outcome = await client.setTimeSensitive({ feedCardId, userIds, timeSensitive: true })
 * for (const { userId, errorMessage } of outcome.failedUserReasons) console.warn(userId, errorMessage)
 * ```
 */
export class Outcome {
  /** Whether every user was reached. */
  readonly ok: boolean
  /** The users not reached. */
  readonly failedUserReasons: readonly FailedUserReason[]
  /** The first of `logIds`. */
  readonly logId: string | undefined
  /** One for each answered request; the platform's support asks for them. */
  readonly logIds: readonly string[]
  /** How many were sent, replays included. */
  readonly requests: number
  /** The `call` of its events. */
  readonly call: number | undefined
  readonly #failure: ErrorData | undefined

  private constructor(data: OutcomeData, key: symbol) {
    if (key !== ours) {
      throw new TypeError('an Outcome comes from a call: it has no public constructor')
    }
    this.ok = data.ok
    this.failedUserReasons = data.failedUserReasons
    this.logId = data.logIds[0]
    this.logIds = data.logIds
    this.requests = data.requests
    this.call = data.call
    setUsers(this, data.users)
    this.#failure = data.failure
  }

  /** Plain data, without what is not known. */
  toJSON(): object {
    return JSON.parse(JSON.stringify({ ...this })) as object
  }

  /** Throws a {@link PartialFailureError} unless `ok`. */
  throwIfFailed(): this {
    if (this.#failure === undefined) {
      return this
    }
    const error = errorOf(this.#failure, { outcome: this })
    Error.captureStackTrace(error, this.throwIfFailed)
    throw error
  }

  static {
    outcomeFrom = (data) => new this(data, ours)
  }
}

export interface Outcome extends Readonly<Users> {}

/** One by one: `Object.assign` is several times as slow. */
function setUsers(outcome: Users, users: Users): void {
  outcome.reached = users.reached
  outcome.failed = users.failed
  outcome.unknown = users.unknown
  outcome.notAttempted = users.notAttempted
}

/**
 * What a call came back with, as the native module tells it.
 *
 * @internal
 */
export interface Answer {
  /** With `logIds`, in place of an outcome: every user handed in was reached, and none was there twice. */
  requests?: number
  logIds?: string[]
  call?: number
  outcome?: OutcomeData
  error?: ErrorData
}

/**
 * @internal
 * @param userIds A copy of what the caller handed in.
 */
export function outcomeOf(
  { requests, logIds, call, outcome }: Answer,
  userIds: string[],
): Outcome | undefined {
  if (requests === undefined || logIds === undefined) {
    return outcome && outcomeFrom(outcome)
  }
  const users = { reached: userIds, failed: nothing, unknown: nothing, notAttempted: nothing }
  return outcomeFrom({
    ok: true,
    failedUserReasons: nothing,
    logIds,
    requests,
    users,
    ...(call !== undefined && { call }),
  })
}
